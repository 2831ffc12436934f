"""Measures one category's expert alone: what it removes of every category, and what it costs."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.drawing.sampler import Sampler
from pipeline.evaluate.results import as_json
from pipeline.params import load_params
from pipeline.sources import ModelSource
from pipeline.storage import write_json
from pipeline.studies.lora import open_study


def main(category: str) -> None:
    params = load_params()
    i = params.images
    study = open_study(
        ModelSource(**params.base_model.weights), params.alone.benchmarks,
        Sampler(**i.sampler), i.shard_rows, i.batch, params.judges.loading, params.judges.rule,
        artifacts.benchmark_scores("base"), params.evaluate.bootstrap, params.seed,
    )  # fmt: skip
    found = study.measure(
        artifacts.alone(category), artifacts.expert(category), category, params.alone.scale
    )
    write_json(artifacts.alone_metrics(category), as_json(found))


if __name__ == "__main__":
    run_stage(main)
