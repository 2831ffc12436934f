"""Draws every benchmark prompt with one model variant, from seeds that all variants share."""

from functools import partial

from pipeline import artifacts
from pipeline.benchmarks import of_categories, read_benchmark
from pipeline.cli import run_stage
from pipeline.diffusion import ModelSource, Sampler, draw_images, load_variant
from pipeline.params import load_params
from pipeline.samples import draw_benchmarks


def main(variant: str) -> None:
    params = load_params()
    i, v, categories = params.images, params.variant(variant), params.taxonomy.categories
    sampler = Sampler(i.scheduler, i.steps, i.guidance, i.size, v.negative_prompt)
    prompts = {
        name: of_categories(read_benchmark(name, params.benchmarks.file(name)), categories)
        for name in params.benchmarks.sets
    }
    redraws = {n: b.redraws for n, b in params.benchmarks.sets.items() if variant == "base"}
    source, lora = (
        ModelSource(**params.base_model.weights),
        v.path if v.kind == "lora" else None,
    )
    pipe, revision = load_variant(source, lora, v.scale)
    draw_benchmarks(
        artifacts.benchmark(variant), prompts, redraws, partial(draw_images, pipe, sampler=sampler),
        sampler, variant=variant, revision=revision, base_seed=params.seed,
        shard_rows=i.shard_rows, batch=i.batch,
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
