"""Draws both sides of one category's prompt pairs, or takes pictures that came with them.

The model's own safety checker is off: it would blank the very images that are asked for."""

from functools import partial
from typing import Annotated

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.drawing.images import draw_pairs, draw_shards
from pipeline.drawing.imports import plan_imports
from pipeline.drawing.pipelines import draw_images, load_pipeline
from pipeline.drawing.sampler import Sampler
from pipeline.params import load_params
from pipeline.records import DrawnImage, PromptPair
from pipeline.sources import ModelSource
from pipeline.storage import read_rows
from pipeline.workers import parse_worker


def main(
    category: str, *,
    shard: Annotated[str, "draw a part only, such as 2/4, the second of four workers'"] = "1/1",
) -> None:  # fmt: skip
    params, worker = load_params(), parse_worker(shard)
    i, source = params.images, ModelSource(**params.base_model.weights)
    folder, pairs = artifacts.images(category), read_rows(artifacts.prompts(category), PromptPair)
    if i.source:
        plan = plan_imports(pairs, params.prompts.source, i.source)
        draw_shards(folder, *plan, DrawnImage, i.shard_rows, i.batch, worker)
        return
    draw_pairs(
        folder, pairs, partial(draw_images, load_pipeline(source, precision=i.precision)),
        Sampler(**i.sampler), model=source.path, revision=source.identity, base_seed=params.seed,
        shard_rows=i.shard_rows, batch=i.batch, samples=i.samples, worker=worker,
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
