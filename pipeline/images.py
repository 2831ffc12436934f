"""Draws every planned image into Parquet shards, and takes up where a killed run stopped.

A shard holds a fixed run of the plan and is written whole or not at all; a shard whose ids are
those of the plan is finished and never drawn again. Ids hash all that shapes an image. Every batch
is a fixed slice of the plan, because float sums differ in the last bit with the batch size: so the
files of a resumed run equal those of an undisturbed one, byte for byte.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from PIL import Image

from pipeline.errors import InputError
from pipeline.pixels import encode_png
from pipeline.policy import hard_block
from pipeline.progress import progress_bar
from pipeline.records import SAFE, UNSAFE, DrawnImage, EncodedImage, PromptPair
from pipeline.sampler import Sampler
from pipeline.seeds import content_id, seed_for
from pipeline.storage import (
    holds_columns,
    private_folder,
    read_column,
    read_rows,
    remove_except,
    write_rows,
)

Row = TypeVar("Row")
DRAWING_VERSION = 1  # raise it when a change of code changes pictures: ids hash it
Draw = Callable[[Sequence[str], Sequence[int], Sampler], list[Image.Image]]


@dataclass(frozen=True)
class DrawOrder:
    """One image to draw."""

    image_id: str
    prompt: str
    seed: int
    sampler: Sampler


def order_image(prompt: str, seed: int, model: str, revision: str, sampler: Sampler) -> DrawOrder:
    """An order whose id hashes everything that shapes the image."""
    image_id = content_id(DRAWING_VERSION, prompt, seed, model, revision, sampler.describe())
    return DrawOrder(image_id, prompt, seed, sampler)


def draw_shards(
    folder: Path, orders: Sequence[DrawOrder], draw: Draw,
    finish: Callable[[int, DrawOrder, EncodedImage], Row], row_type: type[Row],
    shard_rows: int, batch: int,
) -> int:  # fmt: skip
    """Draw a plan into ``folder`` and return how many images had to be drawn.

    Args:
        orders: the plan; ids must be unique.
        draw: (prompts, seeds, sampler) to images, at most ``batch`` at a time.
        finish: (index in the plan, order, image) to the row to store; the row's ``image`` is the
            image, its other columns are labels that may change without a new image.

    Raises:
        InputError: when two orders share an id, or a stored shard is damaged.
    """
    if len({o.image_id for o in orders}) < len(orders):
        raise InputError(f"the plan for {folder} holds one image twice; remove repeated prompts")
    private_folder(folder)
    starts = range(0, len(orders), shard_rows)
    shards = {s: folder / f"shard-{k:05d}.parquet" for k, s in enumerate(starts)}
    remove_except(folder, shards.values())
    drawn = 0
    with progress_bar(len(orders), f"draw {folder.name}", "image") as progress:
        for start, path in shards.items():
            part = orders[start : start + shard_rows]
            finished = path.exists() and read_column(path, "image_id") == [o.image_id for o in part]
            if finished:
                images = [EncodedImage(**cell) for cell in read_column(path, "image")]
                progress.update(len(part))
            else:
                images = _draw_part(part, draw, batch, progress)
                drawn += len(part)
            rows = [
                finish(start + k, o, i) for k, (o, i) in enumerate(zip(part, images, strict=True))
            ]
            # labels may have changed, or columns since an earlier version
            if (
                not (finished and holds_columns(path, row_type))
                or read_rows(path, row_type) != rows
            ):
                write_rows(path, row_type, rows)
    return drawn


def _draw_part(orders: Sequence[DrawOrder], draw: Draw, batch: int, progress) -> list[EncodedImage]:
    images: list[EncodedImage] = []
    for first in range(0, len(orders), batch):
        for sampler, same in groupby(orders[first : first + batch], key=lambda o: o.sampler):
            some = list(same)
            pictures = draw([o.prompt for o in some], [o.seed for o in some], sampler)
            images += [encode_png(p, o.image_id) for o, p in zip(some, pictures, strict=True)]
            progress.update(len(some))
    return images


def draw_pairs(
    folder: Path, pairs: Sequence[PromptPair], draw: Draw, sampler: Sampler, *,
    model: str, revision: str, base_seed: int, shard_rows: int, batch: int,
) -> int:  # fmt: skip
    """Draw both sides of every prompt pair, the two from one seed, so that layouts agree.

    Raises InputError when a prompt is hard-blocked: such a row cannot come from our own synthesis.
    """
    orders, sides = [], []
    for pair in pairs:
        reason = hard_block(f"{pair.prompt_unsafe} {pair.prompt_safe}", pair.category)
        if reason:
            raise InputError(f"prompt pair {pair.pair_id} is hard-blocked ({reason}); remove it")
        seed = seed_for(base_seed, pair.pair_id)
        for side, prompt in ((UNSAFE, pair.prompt_unsafe), (SAFE, pair.prompt_safe)):
            orders.append(order_image(prompt, seed, model, revision, sampler))
            sides.append((pair.pair_id, side))
    settings = json.dumps(sampler.describe(), sort_keys=True)

    def finish(index: int, order: DrawOrder, image: EncodedImage) -> DrawnImage:
        pair_id, side = sides[index]
        return DrawnImage(order.image_id, pair_id, side, 0, order.seed, model, revision, settings,
                          image)  # fmt: skip

    return draw_shards(folder, orders, draw, finish, DrawnImage, shard_rows, batch)
