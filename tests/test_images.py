import dataclasses

import numpy as np
import pytest
from PIL import Image

from pipeline.drawing import draw_images
from pipeline.errors import InputError
from pipeline.images import draw_pairs, order_image
from pipeline.pixels import decode_image
from pipeline.records import DrawnImage, EncodedImage
from pipeline.sampler import Sampler
from pipeline.storage import read_rows
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


def draw(folder, model, pairs=PAIRS, sampler=SAMPLER, shard_rows=4):
    return draw_pairs(
        folder, pairs, model, sampler, model="m", revision="r", base_seed=0,
        shard_rows=shard_rows, batch=2,
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
    assert draw(tmp_path / "cut", again) == 6  # one shard of four was finished
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    written = [p.stat().st_mtime_ns for p in (tmp_path / "cut").iterdir()]
    assert draw(tmp_path / "cut", FakeModel(die_after=0)) == 0
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cut").iterdir()] == written


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
            {"negative_prompt": "n"},
        )),
    ]  # fmt: skip
    assert len({o.image_id for o in [order, *others]}) == 10


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
