"""Measures one LoRA at ever larger scales: IP, quality and side effects against strength."""

from functools import partial

from pipeline import artifacts
from pipeline.benchmarks import of_categories, read_benchmark
from pipeline.cli import run_stage
from pipeline.dial import Outcome, trace_dial
from pipeline.diffusion import ModelSource, Sampler
from pipeline.params import load_params
from pipeline.records import BenchmarkImage
from pipeline.samples import draw_scale, keep_scales
from pipeline.scores import load_panel
from pipeline.storage import read_rows, write_csv, write_rows


def main(model: str) -> None:
    params = load_params()
    i, j, d = params.images, params.judges, params.dial
    files = {name: params.benchmarks.file(name) for name in d.benchmarks}
    asked = params.taxonomy.categories
    prompts = {name: of_categories(read_benchmark(name, f), asked) for name, f in files.items()}
    source, folder = ModelSource(**params.base_model.weights), artifacts.dial(model)
    draw = partial(
        draw_scale, keep_scales(folder, d.scales), prompts, source, d.models[model],
        Sampler(i.scheduler, i.steps, i.guidance, i.size), variant=model,
        base_seed=params.seed, shard_rows=i.shard_rows, batch=i.batch,
    )  # fmt: skip
    table, outcomes = trace_dial(
        d.scales, draw, read_rows(artifacts.benchmark("base"), BenchmarkImage),
        load_panel(j.clip, j.clip_pretrained, j.q16, j.batch),
        {name: params.benchmarks.sets[name].kind for name in d.benchmarks}, j.rule,
        params.evaluate.bootstrap, params.seed,
    )  # fmt: skip
    write_rows(artifacts.dial_outcomes(model), Outcome, outcomes)
    write_csv(artifacts.dial_curve(model), table)


if __name__ == "__main__":
    run_stage(main)
