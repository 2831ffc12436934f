"""Measures an expert of a part of its pairs on its own category's held-out prompts."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.drawing.sampler import Sampler
from pipeline.evaluate.results import as_json
from pipeline.params import load_params
from pipeline.sources import ModelSource
from pipeline.storage import private_folder, write_json
from pipeline.studies.lora import open_study


def main(category: str, part: str) -> None:
    params, run = load_params(), f"{category}/{part}"
    i, folder = params.images, private_folder(artifacts.measured_part(run))
    study = open_study(
        ModelSource(**params.base_model.weights), [params.scaling.unsafe],
        Sampler(**i.sampler), i.shard_rows, i.batch, params.judges.loading, params.judges.rule,
        artifacts.benchmark_scores("base"), params.evaluate.bootstrap, params.seed, category,
    )  # fmt: skip
    found = study.measure(folder / "images", artifacts.part(run), category)
    write_json(folder / "metrics.json", as_json(found))


if __name__ == "__main__":
    run_stage(main)
