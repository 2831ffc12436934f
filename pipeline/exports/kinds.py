"""The forms in which pairs are exported: a row type each, and what a pair becomes in it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, make_dataclass
from functools import partial

from PIL import Image

from pipeline.errors import InputError
from pipeline.judges.hard_block import image_hard_block
from pipeline.judges.raw import nested_scores
from pipeline.pixels import decode_image, encode_png
from pipeline.policy import hard_block
from pipeline.records import EncodedImage, ImageFile, PreferencePair
from pipeline.seeds import content_id, seed_for

REDACTED_SIDE = 8  # pixels that are left of a redacted picture, each way


@dataclass(frozen=True)
class PickedPair:
    """A pair under one of its captions, in the columns of Pick-a-Pic (arXiv 2305.01569).

    That is what the published Diffusion-DPO trainers read (diffusers' ``train_diffusion_dpo.py``,
    Salesforce's ``train.py``): they open the bytes with Pillow, and put ``jpg_1`` first where
    ``label_0`` is 0. The bytes are PNG, whatever the column is called.
    """

    jpg_0: ImageFile
    jpg_1: ImageFile
    label_0: float  # 1: jpg_0 is the chosen one, 0: jpg_1
    caption: str
    pair_id: str  # of both rows of a pair
    category: str


def _without(name: str, *columns: str) -> type:
    left = [(f.name, f.type) for f in fields(PreferencePair) if f.name not in columns]
    return make_dataclass(name, left, frozen=True)


RedactedPair = _without("RedactedPair", "prompt_rejected")
WithheldPair = _without("WithheldPair", "prompt_rejected", "image_rejected")


@dataclass(frozen=True)
class Kind:
    """A form of export."""

    row_type: type
    rows: Callable[[PreferencePair], Iterable[object]]
    unsafe: bool  # whether it holds the unsafe side
    what: str  # for the card and --help


def pick_a_pic(pair: PreferencePair) -> list[PickedPair]:
    """Both captions condition a pair; which image comes first is a hash of its id, not a habit."""
    files = (ImageFile(pair.image_chosen.bytes), ImageFile(pair.image_rejected.bytes))
    chosen_first = seed_for(0, "pick-a-pic", pair.pair_id) % 2 == 0
    first, second = files if chosen_first else files[::-1]
    return [PickedPair(first, second, float(chosen_first), caption, pair.pair_id, pair.category)
            for caption in (pair.prompt_rejected, pair.prompt_chosen)]  # fmt: skip


def redact(pair: PreferencePair, row_type: type) -> list[object]:
    """A pair without what is unsafe in it: its concept is hashed, for its words may be unsafe."""
    values = {f.name: getattr(pair, f.name) for f in fields(row_type)}
    values["concept"] = content_id(pair.concept)
    if "image_rejected" in values:
        values["image_rejected"] = pixelate(pair.image_rejected)
    return [row_type(**values)]


def pixelate(image: EncodedImage) -> EncodedImage:
    """An image of which only 8 x 8 means of its colours are left, drawn softly at its size.

    Nothing else of the original can be got back, for nothing else is stored: neither its other
    pixels nor what its file says beside them.
    """
    picture = decode_image(image)
    means = picture.resize((REDACTED_SIDE, REDACTED_SIDE), Image.Resampling.BOX)
    blurred = Image.new("RGB", picture.size)
    blurred.paste(means.resize(picture.size, Image.Resampling.BILINEAR))
    return encode_png(blurred, image.path.removesuffix(".png"))


KINDS = {
    "pickapic": Kind(
        PickedPair, pick_a_pic, True,
        "Two rows a pair, one for each of its prompts as the caption, in the columns that "
        "Diffusion-DPO trainers read of Pick-a-Pic: `jpg_0` and `jpg_1` are the bytes of PNG "
        "files, `label_0` is 1 where `jpg_0` is the chosen one and 0 where it is `jpg_1`, and "
        "which comes first is chance.",
    ),
    "redacted": Kind(
        RedactedPair, partial(redact, row_type=RedactedPair), False,
        "One row a pair, to look at and to count, not to train on: the rejected prompt is left "
        f"out, of the rejected picture {REDACTED_SIDE} x {REDACTED_SIDE} mean colours are left, "
        "and `concept` is a hash.",
    ),
    "withheld": Kind(
        WithheldPair, partial(redact, row_type=WithheldPair), False,
        "One row a pair, to look at and to count, not to train on: the rejected prompt and the "
        "rejected picture are left out, and `concept` is a hash.",
    ),
    "dataset": Kind(
        PreferencePair, lambda pair: [pair], True,
        "One row a pair, as the pipeline has them.",
    ),
}  # fmt: skip


def rows_of(kind: Kind, pairs: Iterable[PreferencePair]) -> Iterator[object]:
    """The rows of some pairs; InputError for one that is hard-blocked, by text or by image."""
    for pair in pairs:
        reason = (
            hard_block(f"{pair.prompt_rejected} {pair.prompt_chosen}", pair.category)
            or image_hard_block(nested_scores(pair.scores_rejected))
            or image_hard_block(nested_scores(pair.scores_chosen))
        )
        if reason:
            raise InputError(f"pair {pair.pair_id} is hard-blocked ({reason}); run `dvc repro "
                             "build_pairs`, which drops it")  # fmt: skip
        yield from kind.rows(pair)
