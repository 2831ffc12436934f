import dataclasses

import pyarrow.parquet as pq
import pytest

from pipeline.drawing import samples
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.samples import (
    draw_benchmarks,
    draw_scale,
    keep_scales,
    own_sampler,
    scale_folder,
)
from pipeline.errors import InputError
from pipeline.records import BenchmarkImage, BenchmarkPrompt
from pipeline.sources import ModelSource
from pipeline.storage import read_rows
from tests.drawing.test_images import FakeModel

SAMPLER = Sampler("ddim", 1, 1.0, 8)


def prompt(k, text=None, redraws=0, category="hate", **own):
    return BenchmarkPrompt("b", "unsafe", k, redraws, text or f"prompt {k}", category, "k", "",
                           **own)  # fmt: skip


def draw_all(folder, prompts, model, variant="base", **more):
    draw_benchmarks(folder, prompts, model, SAMPLER, variant=variant, revision="r", base_seed=0,
                    shard_rows=8, batch=4, **more)  # fmt: skip
    return read_rows(folder, BenchmarkImage)


def test_every_variant_draws_from_the_same_seeds(tmp_path):
    prompts = [prompt(0, redraws=1), prompt(1, redraws=1)]
    rows = {v: draw_all(tmp_path / v, prompts, FakeModel(), v, redraws=v == "base")
            for v in ("base", "co_merge")}  # fmt: skip
    seeds = {v: {(r.row, r.redraw): r.seed for r in some} for v, some in rows.items()}
    assert seeds["base"].keys() == {(0, 0), (1, 0), (0, 1), (1, 1)}
    assert seeds["co_merge"].items() <= seeds["base"].items()
    assert len(set(seeds["base"].values())) == 4


def test_a_rewritten_prompt_is_drawn_from_the_prompts_seed_and_measured_against_it(tmp_path):
    asked = []

    class Model(FakeModel):
        def __call__(self, prompts, seeds, sampler):
            asked.extend(prompts)
            return super().__call__(prompts, seeds, sampler)

    prompts, words = [prompt(0), prompt(1)], {"prompt 0": "a cup", "prompt 1": "prompt 1"}
    plain = draw_all(tmp_path / "plain", prompts, FakeModel(), "rewrite")
    rows = draw_all(tmp_path / "rewritten", prompts, Model(), "rewrite", rewritten=words)
    assert asked == ["a cup", "prompt 1"]
    assert [(r.prompt, r.seed) for r in rows] == [(r.prompt, r.seed) for r in plain]
    assert rows[0].image_id != plain[0].image_id and rows[1] == plain[1]


def test_what_was_not_rewritten_or_blocked_when_it_was_is_not_drawn(tmp_path):
    for words, message in (({}, "row 0 was not rewritten; run `dvc repro rewrite_prompts`"),
                           ({"prompt 0": "a naked child"}, "row 0 is hard-blocked")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            draw_all(tmp_path, [prompt(0)], FakeModel(), rewritten=words)


def test_a_changed_label_is_stored_without_a_new_image(tmp_path):
    model = FakeModel()
    for category in ("hate", "violence"):
        rows = draw_all(tmp_path, [prompt(0, category=category)], model)
    assert model.drawn == 1
    assert rows[0].category == "violence"


def test_images_of_an_earlier_version_of_the_file_are_kept(tmp_path):
    model = FakeModel()
    rows = draw_all(tmp_path, [prompt(0)], model)
    shard = tmp_path / "shard-00000.parquet"
    pq.write_table(pq.read_table(shard).drop_columns(["kind"]), shard)
    assert draw_all(tmp_path, [prompt(0)], model) == rows
    assert model.drawn == 1


def test_a_prompts_own_settings_go_before_the_profiles(tmp_path):
    used = []

    class Model(FakeModel):
        def __call__(self, prompts, seeds, sampler):
            used.append((prompts, seeds, sampler.guidance, sampler.size, sampler.height))
            return super().__call__(prompts, seeds, sampler)

    wide = {"seed": 7, "guidance": 3.5, "width": 16, "height": 24}
    rows = draw_all(tmp_path, [prompt(0, **wide), prompt(1), prompt(2, **wide, redraws=1)],
                    Model(), redraws=True)  # fmt: skip
    own = used[1]
    assert used[0][0] == ["prompt 1"] and used[0][2:] == (1.0, 8, None)
    assert own[0] == ["prompt 0", "prompt 2", "prompt 2"]  # one batch: their settings are equal
    assert own[1][:2] == [7, 7] and own[1][2] != 7  # a redraw is another seed
    assert own[2:] == (3.5, 16, 24)
    assert {(r.row, r.redraw): r.seed for r in rows}[0, 0] == 7


@pytest.mark.parametrize(
    ("own", "size"),
    [({"width": 16}, (16, 8)), ({"height": 16}, (8, 16)), ({"width": 16, "height": 16}, (16, 16))],
)
def test_what_a_prompt_does_not_bring_is_the_profiles(own, size):
    sampler = own_sampler(SAMPLER, prompt(0, **own))
    assert (sampler.size, sampler.height or sampler.size) == size


def test_benchmarks_may_share_prompts(tmp_path):
    shared = [prompt(0, "same"), dataclasses.replace(prompt(0, "same"), benchmark="c"),
              prompt(1, "same", seed=5, redraws=1)]  # fmt: skip
    rows = draw_all(tmp_path, shared, FakeModel(), redraws=True)
    assert [(r.benchmark, r.row, r.redraw) for r in rows] == [
        ("b", 0, 0), ("c", 0, 0), ("b", 1, 0), ("b", 1, 1),
    ]  # fmt: skip
    assert len({r.image_id for r in rows}) == 4
    assert rows[0].seed == rows[1].seed and rows[0].image.bytes == rows[1].image.bytes


def test_a_blocked_contrast_is_not_drawn(tmp_path):
    row = dataclasses.replace(prompt(0), contrast="a naked child")
    with pytest.raises(InputError, match="benchmark b row 0 is hard-blocked"):
        draw_all(tmp_path, [row], FakeModel())


def test_a_blocked_prompt_is_not_drawn(tmp_path):
    with pytest.raises(InputError, match="benchmark b row 0 is hard-blocked") as error:
        draw_all(tmp_path, [prompt(0, text="a lewd child")], FakeModel())
    assert "lewd" not in str(error.value)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws two prompts of a benchmark at a scale with a model that only counts."""
    model, loaded = FakeModel(), []

    def load(source, kind, lora, scale, precision):
        assert precision == "fp32"
        loaded.append((kind, lora.name, scale))
        return model, f"base+lora@{scale:g}"

    monkeypatch.setattr(samples, "load_variant", load)
    monkeypatch.setattr(
        samples, "draw_images", lambda pipe, prompts, seeds, sampler: pipe(prompts, seeds, sampler)
    )
    prompts = [prompt(k) for k in range(2)]

    def draw(scale):
        return draw_scale(
            tmp_path / "m", prompts, ModelSource("base"), tmp_path / "lora",
            SAMPLER, scale, variant="m", base_seed=0, shard_rows=8, batch=2,
        )  # fmt: skip

    return draw, model, loaded


def test_every_scale_is_drawn_from_the_same_seeds_into_a_folder_of_its_own(drawn, tmp_path):
    draw, model, loaded = drawn
    half, whole = draw(0.5), draw(1.0)
    assert loaded == [("lora", "lora", 0.5), ("lora", "lora", 1.0)]
    assert [i.seed for i in half] == [i.seed for i in whole]
    assert {i.image_id for i in half}.isdisjoint(i.image_id for i in whole)
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"scale-0.5", "scale-1"}
    draw(0.5)
    assert model.drawn == 4  # what is there is not drawn again


def test_scales_that_are_not_asked_for_any_more_are_removed(drawn, tmp_path):
    draw, _, _ = drawn
    draw(0.5)
    draw(1.0)
    kept = keep_scales(tmp_path / "m", [1.0, 1.25])
    assert [p.name for p in kept.iterdir()] == ["scale-1"]
    assert scale_folder(kept, 1.25).name == "scale-1.25"
    assert kept.stat().st_mode & 0o777 == 0o700
