"""Merges the experts of the first categories only, and measures that on all of them."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.drawing.sampler import Sampler
from pipeline.evaluate.results import as_json
from pipeline.latents import load_latents
from pipeline.merging.methods import MergeRecipe
from pipeline.merging.preparation import Preparation
from pipeline.params import load_params
from pipeline.sources import ModelSource
from pipeline.storage import private_folder, write_json
from pipeline.studies.lora import open_study
from pipeline.studies.scaling import merge_some


def main(experts: str) -> None:
    params = load_params()
    i, m, source = params.images, params.merge, ModelSource(**params.base_model.weights)
    chosen = params.taxonomy.categories[: int(experts)]
    folder = private_folder(artifacts.scaled_merge(experts))
    merged = merge_some(
        folder, source, {c: artifacts.expert(c) for c in chosen},
        {c: load_latents(artifacts.latents(c)) for c in chosen},
        Preparation(**m.preparation).of(chosen), MergeRecipe.of(m.method, m.recipes[m.method]),
        prompts=m.calibration_prompts, timesteps=m.calibration_timesteps,
        batch=m.calibration_batch, seed=params.seed,
    )  # fmt: skip
    study = open_study(
        source, [params.scaling.unsafe, *params.scaling.benign], Sampler(**i.sampler),
        i.shard_rows, i.batch, params.judges.loading, params.judges.rule,
        artifacts.benchmark_scores("base"), params.evaluate.bootstrap, params.seed,
    )  # fmt: skip
    found = study.measure(folder / "images", merged, f"first {experts}")
    write_json(folder / "metrics.json", as_json(found))


if __name__ == "__main__":
    run_stage(main)
