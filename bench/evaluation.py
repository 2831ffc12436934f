"""What evaluation costs: ``python -m bench.evaluation``, after `dvc repro`.

One model on the testbed, drawn, judged and counted; its metrics from stored scores against judging
its images again; and the metrics of a hundred thousand made-up images from their scores.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from bench.table import publish, row
from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.samples import draw_benchmarks
from pipeline.drawing.variants import load_variant
from pipeline.evaluate.judged import Judged, load_judged
from pipeline.evaluate.measure import evaluate_variant
from pipeline.params import Params, load_params
from pipeline.records import JudgedImage
from pipeline.scoring.benchmarks import judge_folder
from pipeline.scoring.panel import load_panel
from pipeline.sources import ModelSource
from pipeline.storage import write_rows

SHARD = 1000


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """How long some work takes."""
    start = time.monotonic()
    work(*arguments)
    return time.monotonic() - start


def count(scores: Path, variant: str, params: Params, base: Path | None = None) -> None:
    """All metrics of a variant from its scores; base's are ``base``'s, or its own."""
    judged = load_judged(scores, variant)
    reference = load_judged(base, "base") if base else judged
    evaluate_variant(judged, reference, list(judged.benchmarks), params.judges.rule,
                     params.evaluate.bootstrap, params.seed)  # fmt: skip


def draw(params: Params, variant: str, folder: Path) -> None:
    """All of a variant's benchmark images, the model loaded anew."""
    i, v = params.images, params.variants[variant]
    pipe, revision = load_variant(ModelSource(**params.base_model.weights), v.kind, v.path)
    draw_benchmarks(
        folder, load_prompts(params.benchmarks), partial(draw_images, pipe),
        Sampler(**i.sampler), variant=variant, revision=revision,
        base_seed=params.seed, shard_rows=i.shard_rows, batch=i.batch,
    )  # fmt: skip


def judge(params: Params, images: Path, scores: Path) -> None:
    """Judge a folder of images, the judges loaded anew."""
    panel = load_panel(**params.judges.loading)
    judge_folder(images, scores, panel)


def make_scores(template: Judged, folder: Path, images: int, variant: str) -> None:
    """Scores of so many images, the template's over and over with embeddings of their own."""
    rng = np.random.default_rng(len(variant))
    rows = [r for r in template.rows if r.redraw == 0]
    for start in range(0, images, SHARD):
        part = []
        for k in range(start, min(start + SHARD, images)):
            source = rows[k % len(rows)]
            vector = np.frombuffer(source.clip_embedding, np.float32)
            vector = vector + rng.normal(0, 0.01, len(vector)).astype(np.float32)
            part.append(dataclasses.replace(
                source, image_id=f"{k}", row=k, variant=variant,
                clip_embedding=(vector / np.linalg.norm(vector)).tobytes(),
            ))  # fmt: skip
        write_rows(folder / f"shard-{start:06d}.parquet", JudgedImage, part)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    params = load_params()
    variant = params.merge.method
    stored, base = (artifacts.benchmark_scores(v) for v in (variant, "base"))
    ours, naive = [], []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            again = Path(folder)
            naive.append(seconds(judge, params, artifacts.benchmark(variant), again)
                         + seconds(count, again, variant, params, base))  # fmt: skip
            ours.append(seconds(count, stored, variant, params, base))
    template = load_judged(base, "base")
    with tempfile.TemporaryDirectory() as folder:
        drawing = seconds(draw, params, variant, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        made = {name: Path(folder) / name for name in ("base", "other")}
        for name, path in made.items():
            make_scores(template, path, args.images, name)
        many = seconds(count, made["other"], "other", params, made["base"])
    n = len(load_judged(stored, variant).rows)
    publish("evaluation", [
        row(f"metrics of {n} images", float(np.median(ours)), float(np.median(naive)), "s",
            args.repeats),
        row(f"one model: {n} images drawn, judged, counted", drawing + naive[0], None, "s", 1),
        row(f"metrics of {args.images} images", many, None, "s", 1),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
