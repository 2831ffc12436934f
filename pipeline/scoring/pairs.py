"""Judges look at the images of a category's pairs, one shard after another.

What they find lies in a private folder until all is there, one file for each shard of images, so
that a killed run goes on where it stopped. Every batch is a fixed slice of its shard, because float
sums differ in the last bit with the batch: so a resumed run ends in the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.judges.raw import flat_scores, nested_scores
from pipeline.judges.rules import CLIP, NUDENET
from pipeline.pairs.images import find_samples
from pipeline.progress import progress_bar
from pipeline.records import SAFE, UNSAFE, Detection, DrawnImage, PromptPair, Score
from pipeline.scoring.panel import SCORING_VERSION, Panel
from pipeline.seeds import content_id
from pipeline.storage import (
    private_folder,
    remove_except,
    stream_columns,
    stream_rows,
    write_rows,
)
from pipeline.workers import Worker

if TYPE_CHECKING:
    from torch import Tensor

Prompts = Mapping[tuple[str, str], str]  # pair id and side -> prompt


@dataclass(frozen=True)
class SeenImage:
    """What was found in one image, before that is compared with the other side's."""

    image_id: str
    scores: dict[str, float]  # "judge/score" -> value
    detections: tuple[Detection, ...]
    image_embedding: bytes  # CLIP's, unit length, float32
    text_embedding: bytes  # of the image's own prompt


def look_at_pairs(
    pairs: Sequence[PromptPair], images: Path, panel: Panel, unfinished: Path, worker: Worker
) -> None:
    """Have the judges look at a worker's shards of images; what they find lies in ``unfinished``.

    Several may look at once, each at its part; ``score_pairs`` then finds all of it. Raises
    InputError when there are no images, or one is damaged or of another pair.
    """
    prompts = _prompts(pairs)
    shards = _plan(images, prompts, unfinished, panel)
    _look_at_missing(worker.share(list(shards.items())), prompts, panel)


def score_pairs(
    pairs: Sequence[PromptPair], images: Path, panel: Panel, unfinished: Path
) -> Iterator[Score]:
    """One row per image and judge, in the order of the images.

    Beside what the panel scores, judge ``clip``: ``text`` (100 x cosine with the image's own
    prompt), ``similarity`` (cosine with the other side of the same draw) and ``prompts`` (cosine of
    the two sides' prompts).

    Args:
        images: folder of DrawnImage shards, of which no more is held than a batch.
        unfinished: folder for what is found until all is; remove it when the rows are stored.

    Raises InputError when there are no images, a draw lacks a side, or an image is damaged or of
    another pair.
    """
    others: dict[str, str] = {}
    for unsafe, safe in (sample for some in find_samples(images, pairs) for sample in some):
        others |= {unsafe: safe, safe: unsafe}
    prompts = _prompts(pairs)
    shards = _plan(images, prompts, unfinished, panel)
    remove_except(unfinished, shards.values())
    _look_at_missing(list(shards.items()), prompts, panel)
    return _join(list(shards.values()), others, panel.versions)


def _prompts(pairs: Sequence[PromptPair]) -> Prompts:
    return {(p.pair_id, side): getattr(p, f"prompt_{side}")
            for p in pairs for side in (UNSAFE, SAFE)}  # fmt: skip


def _look_at_missing(shards: Sequence[tuple[Path, Path]], prompts: Prompts, panel: Panel) -> None:
    counts = {file: sum(1 for _ in stream_columns(file, DrawnImage, ["image_id"]))
              for file, _ in shards}  # fmt: skip
    with progress_bar(sum(counts.values()), "judge", "image") as progress:
        for images_file, seen_file in shards:
            if not seen_file.exists():
                write_rows(seen_file, SeenImage, _look(images_file, prompts, panel))
            progress.update(counts[images_file])


def _plan(images: Path, prompts: Prompts, unfinished: Path, panel: Panel) -> dict[Path, Path]:
    """Where what is found in each shard is stored: names hash all that it depends on."""
    judges = content_id(SCORING_VERSION, panel.versions, panel.settings, panel.clip.batch)
    shards = {}
    private_folder(unfinished)
    files = sorted(images.glob("*.parquet"))
    if not files:
        raise InputError(f"{images} holds no images; run `dvc repro generate_images`")
    for file in files:
        asked = []
        for image_id, *key in stream_columns(file, DrawnImage, ["image_id", "pair_id", "side"]):
            if tuple(key) not in prompts:
                raise InputError(f"{file} holds an image of pair {key[0]}, which has no prompts; "
                                 "run `dvc repro generate_images`")  # fmt: skip
            asked.append((image_id, prompts[tuple(key)]))
        shards[file] = unfinished / f"{file.stem}-{content_id(judges, asked)}.parquet"
    return shards


def _look(file: Path, prompts: Prompts, panel: Panel) -> Iterator[SeenImage]:
    rows = stream_rows(file, DrawnImage)
    while part := list(islice(rows, panel.clip.batch)):
        seen = panel.look([row.image for row in part])
        texts = panel.clip.embed_texts([prompts[row.pair_id, row.side] for row in part])
        for k, row in enumerate(part):
            yield SeenImage(
                row.image_id, flat_scores(seen.scores[k]), seen.detections[k],
                seen.embeddings[k].numpy().tobytes(), texts[k].numpy().tobytes(),
            )  # fmt: skip


def _join(
    files: Sequence[Path], others: Mapping[str, str], versions: Mapping[str, str]
) -> Iterator[Score]:
    """The rows of the contract; of what was found only embeddings are held."""
    place: dict[str, int] = {}
    for file in files:
        for (image_id,) in stream_columns(file, SeenImage, ["image_id"]):
            place[image_id] = len(place)
    images, texts = (_embeddings(files, f"{kind}_embedding") for kind in ("image", "text"))
    for file in files:
        columns = stream_columns(file, SeenImage, ["image_id", "scores", "detections"])
        for image_id, found, detections in columns:
            here, there = place[image_id], place[others[image_id]]
            scores = nested_scores(found) | {CLIP: {
                "text": 100 * float(images[here] @ texts[here]),
                "similarity": float(images[here] @ images[there]),
                "prompts": float(texts[here] @ texts[there]),
            }}  # fmt: skip
            for judge, values in sorted(scores.items()):
                seen = detections if judge == NUDENET else ()
                yield Score(image_id, judge, versions[judge], values, seen)


def _embeddings(files: Sequence[Path], column: str) -> "Tensor":
    """One column of vectors (images, dim) float32 in memory of its own.

    Copied, because products may differ in the last bit with where vectors lie in memory.
    """
    import numpy as np
    import torch

    cells = [cell for file in files for (cell,) in stream_columns(file, SeenImage, [column])]
    return torch.from_numpy(np.stack([np.frombuffer(cell, np.float32) for cell in cells])).clone()
