"""Draws every benchmark prompt with one model variant, from seeds that all variants share."""

from typing import Annotated

from pipeline import artifacts
from pipeline.benchmarks import load_prompts, load_rewritten
from pipeline.cli import run_stage
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.samples import draw_benchmarks
from pipeline.drawing.variants import variant_sampler
from pipeline.params import load_params
from pipeline.personal.variant import load_drawing
from pipeline.sources import ModelSource
from pipeline.workers import parse_worker


def main(
    variant: str, *,
    shard: Annotated[str, "draw a part only, such as 2/4, the second of four workers'"] = "1/1",
) -> None:  # fmt: skip
    worker, params = parse_worker(shard), load_params()
    i, v = params.images, params.variant(variant)
    sampler = Sampler(**i.sampler)
    adds = v.model_dump(include={"negative_prompt", "safe_latents"})
    draw, revision = load_drawing(
        ModelSource(**params.base_model.weights), v.kind, v.path, hub=v.hub, revision=v.revision,
        scale=v.scale, bans=v.bans, precision=i.precision,
    )  # fmt: skip
    draw_benchmarks(
        artifacts.benchmark(variant), load_prompts(params.benchmarks), draw,
        variant_sampler(sampler, **adds), variant=variant, revision=revision,
        base_seed=params.seed, shard_rows=i.shard_rows, batch=i.batch,
        redraws=variant == "base", worker=worker,
        rewritten=load_rewritten() if v.rewrite else None,
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
