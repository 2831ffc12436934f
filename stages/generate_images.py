"""Draws both sides of one category's prompt pairs with the model that is to be aligned."""

from functools import partial

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.drawing import draw_images, load_pipeline
from pipeline.images import draw_pairs
from pipeline.params import load_params
from pipeline.records import PromptPair
from pipeline.sampler import Sampler
from pipeline.sources import ModelSource
from pipeline.storage import read_rows


def main(category: str) -> None:
    params = load_params()
    source, i = ModelSource(**params.base_model.weights), params.images
    pairs = read_rows(artifacts.prompts(category), PromptPair)
    sampler = Sampler(i.scheduler, i.steps, i.guidance, i.size)
    pipe = load_pipeline(source)
    draw_pairs(
        artifacts.images(category), pairs, partial(draw_images, pipe), sampler,
        model=source.path, revision=source.identity, base_seed=params.seed,
        shard_rows=i.shard_rows, batch=i.batch,
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
