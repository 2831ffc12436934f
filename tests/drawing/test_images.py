import dataclasses
import json
import os
import signal

import numpy as np
import pytest
from PIL import Image

from pipeline.drawing import images
from pipeline.drawing.images import draw_pairs, order_image
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.pixels import decode_image
from pipeline.records import DrawnImage, EncodedImage
from pipeline.storage import read_rows
from pipeline.workers import ALONE, Worker
from tests.conftest import prompt_pair

SAMPLER = Sampler("ddim", 3, 2.0, 64)
PAIRS = [prompt_pair(k) for k in range(5)]


class FakeModel:
    """Draws a colour that depends on prompt and seed alone; can die after some images."""

    def __init__(self, die_after=None):
        self.drawn, self.die_after = 0, die_after

    def __call__(self, prompts, seeds, sampler):
        images = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            if self.drawn == self.die_after:
                raise KeyboardInterrupt
            self.drawn += 1
            rng = np.random.default_rng([seed, len(prompt)])
            images.append(Image.new("RGB", (8, 8), tuple(rng.integers(256, size=3).tolist())))
        return images


def draw(folder, model, pairs=PAIRS, sampler=SAMPLER, shard_rows=4, **more):
    return draw_pairs(
        folder, pairs, model, sampler, model="m", revision="r", base_seed=0,
        shard_rows=shard_rows, batch=2, **more,
    )  # fmt: skip


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_both_sides_of_a_pair_share_a_seed_and_pairs_do_not(tmp_path):
    draw(tmp_path / "i", FakeModel())
    rows = read_rows(tmp_path / "i", DrawnImage)
    assert [(r.pair_id, r.side) for r in rows[:3]] == [
        ("pair0", "unsafe"), ("pair0", "safe"), ("pair1", "unsafe")
    ]  # fmt: skip
    seeds = {r.pair_id: r.seed for r in rows}
    assert all(seeds[r.pair_id] == r.seed for r in rows)
    assert len(set(seeds.values())) == 5


def test_an_interrupted_run_resumes_to_the_same_files(tmp_path):
    draw(tmp_path / "whole", FakeModel())
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "cut", FakeModel(die_after=7))
    again = FakeModel()
    assert draw(tmp_path / "cut", again) == 4  # three batches of two were finished
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    written = [p.stat().st_mtime_ns for p in (tmp_path / "cut").iterdir()]
    assert draw(tmp_path / "cut", FakeModel(die_after=0)) == 0
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cut").iterdir()] == written


class Killed(FakeModel):
    """Kills its process with SIGKILL after some images."""

    def __call__(self, prompts, seeds, sampler):
        if self.drawn >= self.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.drawn += len(prompts)
        return FakeModel()(prompts, seeds, sampler)


@pytest.mark.parametrize("after", range(0, 10, 2))
def test_a_killed_run_loses_the_batch_it_was_drawing_and_one_that_was_being_written(
    tmp_path, after
):
    draw(tmp_path / "whole", FakeModel(), shard_rows=6)
    child = os.fork()
    if not child:
        draw(tmp_path / "cut", Killed(die_after=after), shard_rows=6)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert draw(tmp_path / "cut", FakeModel(), shard_rows=6) <= 10 - max(0, after - 2)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_workers_with_some_of_the_shards_each_write_the_files_of_one(tmp_path):
    draw(tmp_path / "one", FakeModel())
    draw(tmp_path / "three", FakeModel(), pairs=PAIRS[:1])  # what an earlier plan left
    counts = [draw(tmp_path / "three", FakeModel(), worker=Worker(k, 3)) for k in (2, 0, 1)]
    assert counts == [2, 4, 4]
    assert draw(tmp_path / "three", FakeModel(die_after=0)) == 0
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


@pytest.mark.parametrize(
    ("mine", "theirs", "drawn"),
    [(ALONE, Worker(0, 3), None), (Worker(1, 3), ALONE, None), (Worker(1, 3), Worker(0, 3), 4)],
)
def test_a_run_of_all_goes_alone_and_workers_go_together(tmp_path, mine, theirs, drawn):
    def draw_while_another_comes(prompts, seeds, sampler):
        if not came:
            came.append(None)
            try:
                came[0] = draw(tmp_path / "i", FakeModel(), worker=theirs)
            except InputError as error:
                assert str(error) == (
                    f"another process draws into {tmp_path / 'i'}; wait for its end, or stop it"
                )
        return FakeModel()(prompts, seeds, sampler)

    came = []
    draw(tmp_path / "i", draw_while_another_comes, worker=mine)
    assert came == [drawn]


def test_samples_of_a_pair_have_seeds_of_their_own_and_the_first_is_the_only_ones(tmp_path):
    draw(tmp_path / "one", FakeModel())
    draw(tmp_path / "three", FakeModel(), samples=3)
    rows = read_rows(tmp_path / "three", DrawnImage)
    assert [(r.sample, r.side) for r in rows[:6]] == [
        (k, side) for k in range(3) for side in ("unsafe", "safe")
    ]  # fmt: skip
    assert len({(r.pair_id, r.seed) for r in rows}) == 15 == len(rows) / 2
    assert [r for r in rows if r.sample == 0] == read_rows(tmp_path / "one", DrawnImage)


def test_what_was_drawn_before_a_failure_is_kept_and_a_failed_write_is_not_passed_over(
    tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    model = FakeModel()
    with monkeypatch.context() as patch:
        patch.setattr(images, "encode_png", full)
        with pytest.raises(OSError, match="No space left"):
            draw(tmp_path / "i", model)
    assert draw(tmp_path / "i", FakeModel()) == 10
    assert not (tmp_path / "i" / images.UNFINISHED).exists()


def test_a_change_of_what_shapes_an_image_redraws_it(tmp_path):
    folder = tmp_path / "i"
    draw(folder, FakeModel())
    assert draw(folder, FakeModel(), sampler=dataclasses.replace(SAMPLER, guidance=2.5)) == 10
    changed = [*PAIRS[:4], dataclasses.replace(PAIRS[4], prompt_safe="a blue star 4 with a cup")]
    draw(folder, FakeModel())
    assert draw(folder, FakeModel(), pairs=changed) == 2


def test_images_that_are_no_longer_planned_are_removed(tmp_path):
    draw(tmp_path / "i", FakeModel())
    draw(tmp_path / "i", FakeModel(), pairs=PAIRS[:2])
    assert [p.name for p in (tmp_path / "i").iterdir()] == ["shard-00000.parquet"]


def test_a_truncated_shard_is_named_and_not_taken_for_finished(tmp_path):
    draw(tmp_path / "i", FakeModel())
    shard = tmp_path / "i" / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(InputError, match="shard-00001.parquet is not a readable Parquet"):
        draw(tmp_path / "i", FakeModel())


def test_ids_hash_all_that_shapes_an_image():
    order = order_image("p", 1, "m", "r", SAMPLER)
    others = [
        order_image("q", 1, "m", "r", SAMPLER), order_image("p", 2, "m", "r", SAMPLER),
        order_image("p", 1, "n", "r", SAMPLER), order_image("p", 1, "m", "s", SAMPLER),
        *(order_image("p", 1, "m", "r", dataclasses.replace(SAMPLER, **change)) for change in (
            {"steps": 4}, {"guidance": 3.0}, {"scheduler": "dpm++"}, {"size": 32},
            {"negative_prompt": "n"}, {"precision": "bf16"}, {"precision": "fp16"},
            {"memory": ("vae_tiling",)}, {"compile": True},
        )),
    ]  # fmt: skip
    assert len({o.image_id for o in [order, *others]}) == 14


def test_settings_come_back_from_json_as_they_were():
    """A PNG's record is compared with what is asked for."""
    told = dataclasses.replace(SAMPLER, memory=("vae_slicing",), precision="bf16").describe()
    assert json.loads(json.dumps(told)) == told
    assert SAMPLER.describe().keys() == {"scheduler", "steps", "guidance", "size",
                                         "negative_prompt"}  # fmt: skip


def test_a_hard_blocked_prompt_is_never_drawn(tmp_path):
    bad = dataclasses.replace(PAIRS[0], prompt_safe="a lewd child")
    with pytest.raises(InputError, match="pair0 is hard-blocked") as error:
        draw(tmp_path / "i", FakeModel(), pairs=[bad])
    assert "lewd" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"not an image"])
def test_bytes_that_are_no_image_are_an_error(data):
    with pytest.raises(InputError, match="x.png is damaged"):
        decode_image(EncodedImage(data, "x.png"))


def test_one_image_redrawn_alone_is_that_of_the_batch(testbed_pipeline):
    """Up to the last bit of rounding: float sums differ with the batch size."""
    prompts = [f"a {c} star in a meadow" for c in ("red", "blue", "green", "purple")]
    together = draw_images(testbed_pipeline, prompts, [1, 2, 3, 4], SAMPLER)
    alone = draw_images(testbed_pipeline, prompts[2:3], [3], SAMPLER)
    difference = np.abs(np.asarray(together[2], int) - np.asarray(alone[0], int))
    assert difference.max() <= 2
    again = draw_images(testbed_pipeline, prompts, [1, 2, 3, 4], SAMPLER)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(together, again, strict=True))
