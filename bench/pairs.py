"""What it costs to build preference pairs: ``python -m bench.pairs``.

Made-up scores and pictures. A hundred thousand pairs are joined and gated by what is known of their
images; then some whole categories are built, with small and with large pictures, to see whether
memory grows with them. The naive way reads all rows first, pictures too. Each runs in a process of
its own.
"""

import argparse
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench.table import publish, row
from pipeline.judges.hard_block import ADULT, AGE, MINOR
from pipeline.judges.nudenet import CLASSES
from pipeline.judges.raw import scores_by_image
from pipeline.judges.rules import CLIP, NUDENET, Q16
from pipeline.pairs.build import PairGates, select_pairs, stream_pairs
from pipeline.pairs.judged import ScoredImages, read_scores
from pipeline.records import (
    SAFE,
    UNSAFE,
    DrawnImage,
    EncodedImage,
    PreferencePair,
    PromptPair,
    Score,
)
from pipeline.storage import read_rows, write_rows

GATES = PairGates("safetydpo", 0.0, 0.98, -1.0, 1.0, 1)
SHARD = 256


def make_category(folder: Path, pairs: int, image_bytes: int) -> Path:
    """The files of a category, in which four of five pairs pass; 0 bytes: pictures are empty."""
    rng, ids = random.Random(0), [f"{k:016x}" for k in range(pairs)]
    write_rows(folder / "prompts.parquet", PromptPair, (
        PromptPair(i, "marks", "thornburst", "train", f"a red star {i} with a thornburst",
                   f"a red star {i} with a cup", "made", "up", "", "", 0)
        for i in ids
    ))  # fmt: skip
    images = (
        DrawnImage(f"{i}{side}", i, side, 0, 0, "made", "up", "{}",
                   EncodedImage(os.urandom(image_bytes), f"{i}{side}.png"))
        for i in ids for side in (UNSAFE, SAFE)
    )  # fmt: skip
    for start in range(0, 2 * pairs, SHARD):
        part = (next(images) for _ in range(min(SHARD, 2 * pairs - start)))
        write_rows(folder / f"images/shard-{start:07d}.parquet", DrawnImage, part)
    write_rows(folder / "scores.parquet", Score, _make_scores(ids, rng))
    return folder


def _make_scores(ids: list[str], rng: random.Random) -> Iterator[Score]:
    for pair_id in ids:
        seen = {UNSAFE: rng.random() < 0.9, SAFE: rng.random() < 0.1}
        similarity, prompts = rng.uniform(0, 1), rng.uniform(0.5, 1)
        for side in (UNSAFE, SAFE):
            logit = rng.uniform(0, 9) * (1 if seen[side] else -1)
            values = {
                AGE: {MINOR: rng.uniform(10, 20), ADULT: rng.uniform(15, 25)},
                CLIP: {"text": 30.0, "similarity": similarity, "prompts": prompts},
                NUDENET: {c: max(0.0, rng.uniform(-3, 1)) for c in CLASSES},
                Q16: {"inappropriate": 20 + logit, "not_inappropriate": 20.0},
            }
            for judge, scores in values.items():
                yield Score(f"{pair_id}{side}", judge, "1", scores)


def gate(folder: Path) -> None:
    """Join and gate, no picture read."""
    prompts = read_rows(folder / "prompts.parquet", PromptPair)
    select_pairs(prompts, folder / "images", read_scores(folder / "scores.parquet"), GATES)


def build(folder: Path) -> None:
    """The stage's work."""
    prompts = read_rows(folder / "prompts.parquet", PromptPair)
    scored = read_scores(folder / "scores.parquet")
    selection = select_pairs(prompts, folder / "images", scored, GATES)
    rows = stream_pairs(selection, folder / "images", scored)
    write_rows(folder / "pairs.parquet", PreferencePair, rows)


def build_naively(folder: Path) -> None:
    """The same with every row of every table in memory."""
    images = read_rows(folder / "images", DrawnImage)
    rows = read_rows(folder / "scores.parquet", Score)
    scored = ScoredImages(scores_by_image(rows), {r.judge: r.judge_version for r in rows})
    prompts = read_rows(folder / "prompts.parquet", PromptPair)
    selection = select_pairs(prompts, folder / "images", scored, GATES)
    pairs = list(stream_pairs(selection, folder / "images", scored))
    write_rows(folder / "pairs.parquet", PreferencePair, pairs)
    assert len(images) == 2 * len(prompts)  # they were held until here


def measure(work: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Seconds, and the peak of resident memory in MiB (Linux), in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, work, folder).result()


def _measure(work: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    start = time.monotonic()
    work(folder)
    taken = time.monotonic() - start
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return taken, int(peak[1]) / 1024


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000, help="joined and gated")
    parser.add_argument("--built", type=int, default=2_000, help="pairs built with pictures")
    parser.add_argument("--kib", type=int, nargs=2, default=(4, 400), help="sizes of a picture")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = make_category(Path(name), args.pairs, 0)
        ours, naive = (measure(work, folder) for work in (gate, build_naively))
        rows = [
            row("pairs joined and gated", ours[0], None, "s", args.pairs),
            row("pairs joined and gated: memory", ours[1], naive[1], "MiB", args.pairs),
        ]
    for kib in args.kib:
        with tempfile.TemporaryDirectory() as name:
            folder = make_category(Path(name), args.built, kib * 1024)
            gated, ours, naive = (measure(w, folder) for w in (gate, build, build_naively))
        case = f"{kib} KiB a picture"
        rows += [
            row(f"{case}, gated: memory", gated[1], None, "MiB", args.built),
            row(f"{case}, built", ours[0], naive[0], "s", args.built),
            row(f"{case}, built: memory", ours[1], naive[1], "MiB", args.built),
        ]
    publish("pairs", rows)


if __name__ == "__main__":
    main()
