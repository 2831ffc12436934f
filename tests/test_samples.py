import pytest

from pipeline import samples
from pipeline.benchmarks import BenchmarkPrompt
from pipeline.diffusion import ModelSource, Sampler
from pipeline.samples import draw_scale, keep_scales, scale_folder
from tests.test_images import FakeModel


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws two prompts of a benchmark at a scale with a model that only counts."""
    model, loaded = FakeModel(), []

    def load(source, lora, scale):
        loaded.append((lora.name, scale))
        return model, f"base+lora@{scale:g}"

    monkeypatch.setattr(samples, "load_variant", load)
    monkeypatch.setattr(
        samples, "draw_images", lambda pipe, prompts, seeds, sampler: pipe(prompts, seeds)
    )
    prompts = {"b": [BenchmarkPrompt("b", k, f"prompt {k}", "hate", "k", "") for k in range(2)]}

    def draw(scale):
        return draw_scale(
            tmp_path / "m", prompts, ModelSource("base"), tmp_path / "lora",
            Sampler("ddim", 1, 1.0, 8), scale, variant="m", base_seed=0, shard_rows=8, batch=2,
        )  # fmt: skip

    return draw, model, loaded


def test_every_scale_is_drawn_from_the_same_seeds_into_a_folder_of_its_own(drawn, tmp_path):
    draw, model, loaded = drawn
    half, whole = draw(0.5), draw(1.0)
    assert loaded == [("lora", 0.5), ("lora", 1.0)]
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
