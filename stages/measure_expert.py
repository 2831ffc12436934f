"""Measures one category's expert alone: what it removes of every category, and what it costs."""

from pipeline import artifacts
from pipeline.benchmark_scores import judge_images
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.evaluate.judged import Judged, load_judged
from pipeline.evaluate.measure import evaluate_variant
from pipeline.evaluate.results import as_json
from pipeline.params import load_params
from pipeline.sampler import Sampler
from pipeline.samples import draw_scale
from pipeline.scores import load_panel
from pipeline.sources import ModelSource
from pipeline.storage import write_json


def main(category: str) -> None:
    params = load_params()
    i, j, names = params.images, params.judges, params.alone.benchmarks
    images = draw_scale(
        artifacts.alone(category), load_prompts(names), ModelSource(**params.base_model.weights),
        artifacts.expert(category), Sampler(i.scheduler, i.steps, i.guidance, i.size),
        params.alone.scale, variant=category, base_seed=params.seed, shard_rows=i.shard_rows,
        batch=i.batch,
    )  # fmt: skip
    panel = load_panel(j.clip, j.clip_pretrained, j.q16, j.batch, j.inception)
    results = evaluate_variant(
        Judged(judge_images(images, panel)),
        load_judged(artifacts.benchmark_scores("base"), "base"), names, j.rule,
        params.evaluate.bootstrap, params.seed,
    )  # fmt: skip
    write_json(artifacts.alone_metrics(category), as_json(results))


if __name__ == "__main__":
    run_stage(main)
