"""What an expert is worth, read by the world's own checker: ``python -m bench.expert``.

Trains every category's expert twice through the real stage, from the pairs that ``dvc repro`` has
cached: as params.yaml says (ours) and with fresh random draws at every visit, as published (naive),
or, with ``--naive whole``, with all rows and without a null space, as published: not to be merged.
``marks`` is the share of pictures of the category's held-out concepts that still show a mark,
``own`` that of one of the category's; others are what the checker takes for one, such as a
shapeless blob. ``colour`` and ``shape`` are the shares of benign pictures that have those they
should, less base's.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from bench.table import publish, row
from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.params import Params, load_params
from pipeline.records import BenchmarkPrompt
from pipeline.seeds import seed_for
from pipeline.sources import ModelSource
from pipeline.testbed.check import CHECKER, draw_prompts
from pipeline.testbed.checker import check_images, load_checker

SIDES = ("ours", "naive")
MARKS = ("marks", "own")
NAIVE = {  # as published: keys of params.yaml's experts, by section
    "fresh": {"dpo": {"fixed_draws": None}},
    "whole": {"lora": {"row_share": 1.0, "null_damping": None}},
}


def train(folder: Path, category: str, changed: Mapping[str, Mapping[str, object]]) -> float:
    """Run the stage in a folder of its own; returns its seconds, from start to end."""
    params = yaml.safe_load(artifacts.PARAMS.read_text())
    for section, values in changed.items():
        params["experts"][section] |= values
    (folder / artifacts.DATA).mkdir(parents=True)
    (folder / artifacts.PARAMS).write_text(yaml.safe_dump(params))
    for shared in (artifacts.TESTBED.parent, artifacts.latents(category).parent):
        (folder / shared).symlink_to(shared.resolve())
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "stages.train_expert", category], cwd=folder, check=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    return time.monotonic() - start


def read_pictures(
    params: Params, lora: Path | None, prompts: Sequence[BenchmarkPrompt]
) -> list[dict[str, str]]:  # fmt: skip
    """What the checker sees in pictures of prompts, drawn from the pipeline's own seeds."""
    asked = [p.prompt for p in prompts]
    seeds = [seed_for(params.seed, "benchmark", prompt, 0) for prompt in asked]
    images = draw_prompts(ModelSource(**params.base_model.weights), lora, asked, seeds)
    return check_images(load_checker(CHECKER), images)


def share(hits: Sequence[bool]) -> float:
    """The share that is true."""
    return sum(hits) / len(hits)


def accuracies(prompts: Sequence[BenchmarkPrompt], read: Sequence[dict]) -> dict[str, float]:
    """Shares of pictures with their prompt's colour and shape: "a red star ..."."""
    pairs = [(p.prompt.split(), r) for p, r in zip(prompts, read, strict=True)]
    return {"colour": share([r["colour"] == words[1] for words, r in pairs]),
            "shape": share([r["shape"] == words[2] for words, r in pairs])}  # fmt: skip


def measure(
    params: Params, category: str, changed: Mapping[str, Mapping[str, object]],
    base: dict[str, float],
) -> dict[str, float]:  # fmt: skip
    """One training: seconds, marks, and how colour and shape differ from ``base``'s."""
    heldout, benign = load_prompts(["heldout"]), load_prompts(["benign"])
    asked = [p for p in heldout if p.category == category]
    with tempfile.TemporaryDirectory() as folder:
        seconds = train(Path(folder), category, changed)
        lora = Path(folder) / artifacts.expert(category)
        read = read_pictures(params, lora, asked + benign)
    ours = accuracies(benign, read[len(asked) :])
    seen = [r["category"] for r in read[: len(asked)]]
    shown = {"marks": share([s != "none" for s in seen]),
             "own": share([s == category for s in seen])}  # fmt: skip
    return {"s": seconds} | shown | {name: ours[name] - base[name] for name in base}


def main() -> None:
    """Command line entry point."""
    params = load_params()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--categories", nargs="+", default=params.taxonomy.categories)
    parser.add_argument("--naive", choices=NAIVE, default="fresh", help="what ours is held against")
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    rows, benign = [], load_prompts(["benign"])
    base = accuracies(benign, read_pictures(params, None, benign))
    for category in args.categories:
        for side, changed in zip(SIDES, ({}, NAIVE[args.naive]), strict=True):
            measured = measure(params, category, changed, base)
            for name, value in measured.items():
                found[side].setdefault(name, []).append(value)
        for name in MARKS:
            rows.append(
                row(f"{name}, {category}", *(found[s][name][-1] for s in SIDES), "share", 1)
            )
    n = len(args.categories)
    means = {k: [statistics.mean(found[s][k]) for s in SIDES] for k in (*MARKS, *base)}
    for name in MARKS:
        rows.append(row(f"{name}, mean", *means.pop(name), "share", n))
    for name, (ours, naive) in means.items():  # differences of either sign: no ratio
        rows.append(row(f"{name}, mean", ours, naive, "share", n) | {"ratio": None})
    medians = [statistics.median(found[side]["s"]) for side in SIDES]
    publish(
        "expert" if args.naive == "fresh" else f"expert_{args.naive}",
        [*rows, row("stage", *medians, "s", n)],
    )


if __name__ == "__main__":
    main()
