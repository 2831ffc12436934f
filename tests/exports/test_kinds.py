import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import InputError
from pipeline.exports.kinds import KINDS, pick_a_pic, pixelate, rows_of
from pipeline.judges.hard_block import AGE, MINOR
from pipeline.judges.rules import GENITALIA
from pipeline.pixels import decode_image
from pipeline.records import EncodedImage, PreferencePair
from pipeline.seeds import content_id
from pipeline.storage import group_rows
from tests.conftest import png
from tests.pair_files import Category, Draw


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Category(*[Draw()] * 40).build(tmp_path_factory.mktemp("pairs"))[0]


def preprocess_train(examples):
    """What diffusers' train_diffusion_dpo.py makes of a batch of Pick-a-Pic, restated.

    Both pictures of a row on the channel axis, the preferred one first.
    """
    columns = []
    for name in ("jpg_0", "jpg_1"):
        opened = [Image.open(io.BytesIO(data)).convert("RGB") for data in examples[name]]
        columns.append([torch.from_numpy(np.array(i)).permute(2, 0, 1) / 255 for i in opened])
    rows = []
    for both, label_0 in zip(zip(*columns, strict=True), examples["label_0"], strict=True):
        if label_0 == 0:
            both = both[::-1]
        rows.append(torch.cat(both, dim=0))
    return torch.stack(rows)


def test_public_trainers_find_the_chosen_picture_first(pairs):
    rows = [row for pair in pairs for row in pick_a_pic(pair)]
    batch = {f.name: [getattr(r, f.name) for r in rows] for f in dataclasses.fields(rows[0])}
    pixels = preprocess_train(batch)
    assert pixels.shape == (80, 6, 8, 8)
    blue, red = torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])
    assert (pixels == torch.cat([blue, red])[None, :, None, None]).all()
    assert set(batch["label_0"]) == {0.0, 1.0}


def test_a_pair_has_a_row_for_each_caption_and_its_side_is_its_ids_chance(pairs):
    rows = [pick_a_pic(pair) for pair in pairs]
    for pair, both in zip(pairs, rows, strict=True):
        assert {r.caption for r in both} == {pair.prompt_rejected, pair.prompt_chosen}
        assert {(r.pair_id, r.category) for r in both} == {(pair.pair_id, "violence")}
        assert both[0].label_0 == both[1].label_0
    first = [both[0].label_0 for both in rows]
    assert 10 < sum(first) < 30  # of 40
    assert [pick_a_pic(pair)[0].label_0 for pair in reversed(pairs)] == first[::-1]


def noise(seed, size=64):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(pixels, **extra):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **extra)
    return EncodedImage(buffer.getvalue(), "x.png")


def test_only_mean_colours_are_left_of_a_redacted_picture():
    # pixels are shuffled within each of the 8 x 8 blocks: only what these sum to stays
    pixels, rng = noise(0), np.random.default_rng(1)
    blocks = pixels.reshape(8, 8, 8, 8, 3).swapaxes(1, 2).reshape(64, 64, 3)
    other = np.stack([rng.permutation(block) for block in blocks])
    other = other.reshape(8, 8, 8, 8, 3).swapaxes(1, 2).reshape(64, 64, 3)
    assert np.abs(other.astype(int) - pixels).mean() > 50
    shown, as_well = (
        np.asarray(decode_image(pixelate(encoded(p))), float) for p in (pixels, other)
    )
    assert np.abs(shown - as_well).max() <= 2  # rounding
    assert shown.shape == (64, 64, 3)
    assert np.abs(shown[4:-4:8, 4:-4:8] - blocks.mean(1).reshape(8, 8, 3)[:7, :7]).max() < 20
    assert np.abs(np.diff(shown, axis=1)).max() < 12  # soft: no edge of the original


def test_nothing_of_its_file_is_left_either():
    from PIL.PngImagePlugin import PngInfo

    told = PngInfo()
    told.add_text("prompt", "a thornburst")
    redacted = pixelate(encoded(noise(0), pnginfo=told, icc_profile=b"p" * 200))
    assert Image.open(io.BytesIO(redacted.bytes)).info == {}


def test_redacted_rows_hold_nothing_unsafe(pairs):
    pair = dataclasses.replace(pairs[0], image_rejected=encoded(noise(0)))
    for name in ("redacted", "withheld"):
        (row,) = KINDS[name].rows(pair)
        told = repr(dataclasses.asdict(row))
        assert "thornburst" not in told
        assert row.concept == content_id("thornburst")
        assert repr(pair.image_rejected.bytes)[2:-1] not in told
        assert not hasattr(row, "prompt_rejected")
        assert (row.prompt_chosen, row.margin) == (pairs[0].prompt_chosen, 5.0)
        assert row.scores_rejected == pairs[0].scores_rejected
    assert not hasattr(row, "image_rejected")


def test_the_dataset_is_the_pairs(pairs):
    assert list(rows_of(KINDS["dataset"], pairs)) == pairs


@pytest.mark.parametrize("name", KINDS)
def test_few_rows_with_pictures_are_held_at_once(name):
    assert group_rows(KINDS[name].row_type) == group_rows(PreferencePair) < 100


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("side", ["chosen", "rejected", "text"])
def test_hard_blocked_pairs_are_never_exported(pairs, name, side):
    if side == "text":
        pair = dataclasses.replace(pairs[1], prompt_chosen="a lewd child")
    else:
        scores = getattr(pairs[1], f"scores_{side}")
        scores = scores | {f"nudenet/{GENITALIA[0]}": 0.5, f"{AGE}/{MINOR}": 90.0}
        pair = dataclasses.replace(pairs[1], **{f"scores_{side}": scores})
    rows = rows_of(KINDS[name], [pairs[0], pair])
    with pytest.raises(InputError, match="pair pair1 is hard-blocked"):
        list(rows)


def test_scores_that_the_hard_block_needs_must_be_there(pairs):
    pair = dataclasses.replace(pairs[0], scores_rejected={})
    with pytest.raises(InputError, match="needs scores of judge"):
        list(rows_of(KINDS["redacted"], [pair]))


def test_damaged_pictures_are_errors(pairs):
    pair = dataclasses.replace(pairs[0], image_rejected=EncodedImage(png("red").bytes[:40], "x"))
    with pytest.raises(InputError, match="is damaged"):
        KINDS["redacted"].rows(pair)
