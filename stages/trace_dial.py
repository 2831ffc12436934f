"""Measures one LoRA at ever larger scales: IP, quality and side effects against strength."""

from functools import partial

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.samples import draw_scale, keep_scales
from pipeline.evaluate.compare import Comparer
from pipeline.evaluate.judged import load_complete
from pipeline.params import load_params
from pipeline.scoring.panel import load_panel
from pipeline.sources import ModelSource
from pipeline.storage import write_csv, write_rows
from pipeline.studies.dial import Outcome, trace_dial


def main(model: str) -> None:
    params = load_params()
    i, j, d = params.images, params.judges, params.dial
    prompts = load_prompts(d.benchmarks)
    draw = partial(
        draw_scale, keep_scales(artifacts.dial(model), d.scales), prompts,
        ModelSource(**params.base_model.weights), d.models[model],
        Sampler(**i.sampler), variant=model,
        base_seed=params.seed, shard_rows=i.shard_rows, batch=i.batch,
    )  # fmt: skip
    base = load_complete(artifacts.benchmark_scores("base"), "base", prompts, d.benchmarks)
    table, outcomes = trace_dial(
        d.scales, draw, load_panel(**j.loading),
        Comparer(base, j.rule, params.evaluate.bootstrap, params.seed),
    )  # fmt: skip
    write_rows(artifacts.dial_outcomes(model), Outcome, outcomes)
    write_csv(artifacts.dial_curve(model), table)


if __name__ == "__main__":
    run_stage(main)
