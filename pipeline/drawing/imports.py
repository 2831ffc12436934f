"""Pictures that somebody else drew, such as the published CoProV2's, in place of drawn ones.

Its CSV is imported as prompts (``pipeline.prompts.imports``) and names a picture for each; here
their files become the shards that drawing would have made, by the same ``draw_shards``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pipeline.drawing.images import Draw, DrawOrder, refuse_blocked
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.pixels import open_image
from pipeline.prompts.imports import read_pairs
from pipeline.records import SAFE, UNSAFE, DrawnImage, EncodedImage, PromptPair
from pipeline.seeds import content_id
from pipeline.storage import file_id

MODEL = "imported"  # what such rows have for a model; their revision is that of the file
_UNKNOWN = Sampler("", 0, 0.0, 0)  # how they were drawn is not known


class ImportPlan(NamedTuple):
    """What ``pipeline.drawing.images.draw_shards`` takes, in its order."""

    orders: list[DrawOrder]  # ``prompt`` is the path of a file
    draw: Draw
    finish: Callable[[int, DrawOrder, EncodedImage], DrawnImage]


def plan_imports(pairs: Sequence[PromptPair], source: Path, folder: Path) -> ImportPlan:
    """Both pictures of every pair, one draw of each, in the order in which they would be drawn.

    A picture's id hashes its file, so that a file that has changed is read again. ``draw`` decodes
    it whole and leaves out all but its pixels; it raises InputError, naming the file, for one that
    is cut off, too large, or no picture.

    Args:
        pairs: of one category, imported from ``source``.
        source: the CSV; where it holds a pair's texts twice the first has its pictures.
        folder: of the files that the CSV names.

    Raises:
        InputError: the CSV names no pictures or not those of a pair, files are missing, or a pair
            is hard-blocked.
    """
    orders, labels = [], []
    for pair, names in zip(pairs, _find_names(pairs, source, folder), strict=True):
        refuse_blocked(pair)
        for side, name in zip((UNSAFE, SAFE), names, strict=True):
            revision = file_id(folder / name)
            image_id = content_id(MODEL, pair.pair_id, side, revision)
            orders.append(DrawOrder(image_id, str(folder / name), 0, _UNKNOWN))
            labels.append((pair.pair_id, side, revision))

    def finish(index: int, order: DrawOrder, image: EncodedImage) -> DrawnImage:
        pair_id, side, revision = labels[index]
        return DrawnImage(order.image_id, pair_id, side, 0, 0, MODEL, revision, "{}", image)

    return ImportPlan(orders, _open_files, finish)


def _find_names(
    pairs: Sequence[PromptPair], source: Path, folder: Path
) -> list[tuple[str, str]]:  # fmt: skip
    """The file names of every pair's unsafe and safe picture, all of which are there."""
    named: dict[tuple[str, str], tuple[str, str]] = {}
    for row in read_pairs(source)[0]:
        if row.images is None:
            raise InputError(f"prompts.source: {source} names no pictures, as CoProV2's CSV does")
        named.setdefault((row.pair.unsafe, row.pair.safe), row.images)
    texts = [(pair.prompt_unsafe, pair.prompt_safe) for pair in pairs]
    if unknown := [p.pair_id for p, t in zip(pairs, texts, strict=True) if t not in named]:
        raise InputError(
            f"{len(unknown)} of {len(pairs)} prompt pairs, first {unknown[0]}, are not in "
            f"{source}; run `dvc repro synthesize_prompts`, which imports them"
        )
    found = [named[t] for t in texts]
    if missing := [name for names in found for name in names if not (folder / name).is_file()]:
        raise InputError(
            f"images.source: {len(missing)} of {2 * len(pairs)} pictures are not in {folder}, "
            f"first {missing[0]}"
        )
    return found


def _open_files(paths: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> list[Image.Image]:
    pictures = [open_image(Path(path)) for path in paths]
    for picture in pictures:
        picture.info = {}  # what a camera or a program wrote beside the pixels
    return pictures
