"""Draws every planned image into Parquet shards, and takes up where a killed run stopped.

A shard holds a fixed run of the plan and is written whole or not at all; a shard whose ids are
those of the plan is finished and never drawn again. Ids hash all that shapes an image. Every batch
is a fixed slice of its shard, because float sums differ in the last bit with the batch size: so
the files of a resumed run, and of several workers with some of the shards each, equal those of one
undisturbed run, byte for byte.

Images are encoded and written while the next batch is drawn: a killed run loses the batch that was
being drawn and one that was being written. Those before lie beside the shards until theirs is
whole.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image
from tqdm import tqdm

from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.pixels import encode_png
from pipeline.policy import hard_block
from pipeline.progress import progress_bar
from pipeline.records import SAFE, UNSAFE, DrawnImage, EncodedImage, PromptPair, StoredImage
from pipeline.seeds import content_id, seed_for
from pipeline.storage import (
    held_lock,
    holds_columns,
    private_folder,
    read_column,
    read_rows,
    remove_except,
    write_rows,
)
from pipeline.workers import ALONE, Worker

Row = TypeVar("Row")
DRAWING_VERSION = 1  # raise it when a change of code changes pictures: ids hash it
Draw = Callable[[Sequence[str], Sequence[int], Sampler], list[Image.Image]]
UNFINISHED = ".unfinished"  # folder of the batches of shards that are not whole
LOCK = "lock"  # file in it: a run of all shards goes alone, workers go together


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
    shard_rows: int, batch: int, worker: Worker = ALONE,
) -> int:  # fmt: skip
    """Draw a plan into ``folder`` and return how many images had to be drawn.

    Args:
        orders: the plan; ids must be unique.
        draw: (prompts, seeds, sampler) to images, at most ``batch`` at a time.
        finish: (index in the plan, order, image) to the row to store; the row's ``image`` is the
            image, its other columns are labels that may change without a new image.
        worker: draws its shards only, and removes nothing; several may work at once, and a run
            of one then finds all of it drawn.

    Raises:
        InputError: when two orders share an id, a stored shard is damaged, or another process
            draws into the folder (unless both are workers of several).
    """
    if len({o.image_id for o in orders}) < len(orders):
        raise InputError(f"the plan for {folder} holds one image twice; remove repeated prompts")
    private_folder(folder)
    shards = [
        _Shard(folder / f"shard-{k:05d}.parquet", start, orders[start : start + shard_rows],
               batch, finish, row_type)
        for k, start in enumerate(range(0, len(orders), shard_rows))
    ]  # fmt: skip
    lock = private_folder(folder / UNFINISHED) / LOCK
    with held_lock(lock, not worker.alone, f"draws into {folder}"):
        if worker.alone:
            remove_except(folder, [s.path for s in shards] + [folder / UNFINISHED])
        drawn = _draw_missing(worker.share(shards), draw, f"draw {folder.name}")
        if worker.alone:
            shutil.rmtree(folder / UNFINISHED)
    return drawn


def _draw_missing(shards: Sequence["_Shard"], draw: Draw, title: str) -> int:
    """Make shards whole; returns how many images had to be drawn."""
    drawn = 0
    with (
        progress_bar(sum(len(s.orders) for s in shards), title, "image") as bar,
        _Background() as background,
    ):
        for shard in shards:
            if shard.is_whole():
                shard.relabel()
                bar.update(len(shard.orders))
                continue
            for number, some in shard.batches():
                if stored := shard.stored_batch(number):
                    background.do(_keep, shard, number, stored, bar)
                    continue
                drawn += len(some)
                pictures = _draw_batch(some, draw)
                background.do(_encode_and_keep, shard, number, some, pictures, bar)
    return drawn


@dataclass
class _Shard(Generic[Row]):
    """One file of the plan, and what is drawn of it so far."""

    path: Path
    start: int  # of its first order in the plan
    orders: Sequence[DrawOrder]
    batch: int
    finish: Callable[[int, DrawOrder, EncodedImage], Row]
    row_type: type[Row]
    drawn: dict[int, list[EncodedImage]] = field(default_factory=dict)  # by number of the batch

    def is_whole(self) -> bool:
        """Whether the file is there with the images of the plan."""
        ids = [o.image_id for o in self.orders]
        return self.path.exists() and read_column(self.path, "image_id") == ids

    def batches(self) -> Iterator[tuple[int, Sequence[DrawOrder]]]:
        """What is drawn together, numbered."""
        for number, first in enumerate(range(0, len(self.orders), self.batch)):
            yield number, self.orders[first : first + self.batch]

    def stored_batch(self, number: int) -> list[EncodedImage] | None:
        """The images of a batch that an earlier run drew."""
        path, some = self._piece(number), dict(self.batches())[number]
        if not path.exists():
            return None
        rows = read_rows(path, StoredImage)
        return [r.image for r in rows] if [r.image_id for r in rows] == _ids(some) else None

    def keep(self, number: int, images: list[EncodedImage]) -> None:
        """Take a batch's images; the last batch writes the file."""
        batches = dict(self.batches())
        self.drawn[number] = images
        if len(self.drawn) < len(batches):
            private_folder(self.path.parent / UNFINISHED)
            rows = map(StoredImage, _ids(batches[number]), images)
            write_rows(self._piece(number), StoredImage, rows)
            return
        self._write([image for number in batches for image in self.drawn[number]])
        for number in batches:
            self._piece(number).unlink(missing_ok=True)
        self.drawn.clear()

    def relabel(self) -> None:
        """Write labels that have changed, or columns since an earlier version."""
        if holds_columns(self.path, self.row_type):
            rows = read_rows(self.path, self.row_type)
            images = [row.image for row in rows]
            if rows == self._rows(images):
                return
        else:
            images = [EncodedImage(**cell) for cell in read_column(self.path, "image")]
        self._write(images)

    def _rows(self, images: Sequence[EncodedImage]) -> list[Row]:
        numbered = enumerate(zip(self.orders, images, strict=True), self.start)
        return [self.finish(index, order, image) for index, (order, image) in numbered]

    def _write(self, images: Sequence[EncodedImage]) -> None:
        write_rows(self.path, self.row_type, self._rows(images))

    def _piece(self, number: int) -> Path:
        return self.path.parent / UNFINISHED / f"{self.path.stem}-{number:05d}.parquet"


def _ids(orders: Sequence[DrawOrder]) -> list[str]:
    return [order.image_id for order in orders]


class _Background:
    """Does one thing at a time beside the caller, who waits for the last before the next.

    Leaving waits too, so that what was drawn when something failed is not lost.
    """

    def __enter__(self) -> "_Background":
        self._pool, self._last = ThreadPoolExecutor(1), None
        return self

    def do(self, work: Callable[..., None], *args: object) -> None:
        self._wait()
        self._last: Future | None = self._pool.submit(work, *args)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last:
            last.result()

    def __exit__(self, kind, *_) -> None:
        self._pool.shutdown()
        if kind is None:
            self._wait()


def _draw_batch(orders: Sequence[DrawOrder], draw: Draw) -> list[Image.Image]:
    pictures: list[Image.Image] = []
    for sampler, same in groupby(orders, key=lambda o: o.sampler):
        some = list(same)
        pictures += draw([o.prompt for o in some], [o.seed for o in some], sampler)
    return pictures


def _encode_and_keep(
    shard: _Shard, number: int, orders: Sequence[DrawOrder], pictures: Sequence[Image.Image],
    progress: tqdm,
) -> None:  # fmt: skip
    images = [encode_png(p, o.image_id) for o, p in zip(orders, pictures, strict=True)]
    _keep(shard, number, images, progress)


def _keep(shard: _Shard, number: int, images: list[EncodedImage], progress: tqdm) -> None:
    shard.keep(number, images)
    progress.update(len(images))


def refuse_blocked(pair: PromptPair) -> None:
    """Raise InputError for a hard-blocked prompt: such a row cannot come from our own synthesis."""
    reason = hard_block(f"{pair.prompt_unsafe} {pair.prompt_safe}", pair.category)
    if reason:
        raise InputError(f"prompt pair {pair.pair_id} is hard-blocked ({reason}); remove it")


def draw_pairs(
    folder: Path, pairs: Sequence[PromptPair], draw: Draw, sampler: Sampler, *,
    model: str, revision: str, base_seed: int, shard_rows: int, batch: int, samples: int = 1,
    worker: Worker = ALONE,
) -> int:  # fmt: skip
    """Draw both sides of every prompt pair, the two from one seed, so that layouts agree.

    A pair has ``samples`` such draws. Raises InputError when a prompt is hard-blocked.
    """
    orders, sides = [], []
    for pair in pairs:
        refuse_blocked(pair)
        for sample in range(samples):
            seed = seed_for(base_seed, pair.pair_id, *([sample] if sample else []))
            for side, prompt in ((UNSAFE, pair.prompt_unsafe), (SAFE, pair.prompt_safe)):
                orders.append(order_image(prompt, seed, model, revision, sampler))
                sides.append((pair.pair_id, side, sample))
    settings = json.dumps(sampler.describe(), sort_keys=True)

    def finish(index: int, order: DrawOrder, image: EncodedImage) -> DrawnImage:
        return DrawnImage(order.image_id, *sides[index], order.seed, model, revision, settings,
                          image)  # fmt: skip

    return draw_shards(folder, orders, draw, finish, DrawnImage, shard_rows, batch, worker)
