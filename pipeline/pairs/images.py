"""Which images are those of a prompt pair; no picture is read for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.records import SAFE, UNSAFE, DrawnImage, PromptPair
from pipeline.storage import stream_columns


class Sample(NamedTuple):
    """The image ids of one draw of a pair."""

    unsafe: str
    safe: str


def find_samples(images: Path, pairs: Sequence[PromptPair]) -> list[list[Sample]]:
    """The draws of every pair, from a folder of DrawnImage shards; every pair has as many.

    Raises InputError when a draw lacks a side, or has one twice.
    """
    ids: dict[tuple[str, int, str], str] = {}
    for *key, image_id in stream_columns(
        images, DrawnImage, ("pair_id", "sample", "side", "image_id")
    ):
        if ids.setdefault(tuple(key), image_id) != image_id:
            raise InputError(f"{images} holds {_name(*key)} twice; run `dvc repro generate_images`")
    count = 1 + max((sample for _, sample, _ in ids), default=0)
    lost = [(p.pair_id, k, side) for p in pairs for k in range(count) for side in (UNSAFE, SAFE)
            if (p.pair_id, k, side) not in ids]  # fmt: skip
    if lost:
        raise InputError(
            f"{images} lacks {len(lost)} of {2 * count * len(pairs)} images, first "
            f"{_name(*lost[0])}; run `dvc repro generate_images` for this category"
        )
    return [
        [Sample(ids[p.pair_id, k, UNSAFE], ids[p.pair_id, k, SAFE]) for k in range(count)]
        for p in pairs
    ]


def _name(pair_id: str, sample: int, side: str) -> str:
    return f"the {side} image of pair {pair_id}, sample {sample}"
