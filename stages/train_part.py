"""Trains a category's expert on a part of its pairs."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.latents import load_latents
from pipeline.params import load_params
from pipeline.sources import ModelSource
from pipeline.storage import read_columns
from pipeline.studies.parts import recipe_of_part, take_part
from pipeline.training.experts import Outputs, Recipe, train_and_save


def main(category: str, part: str) -> None:
    params, run = load_params(), f"{category}/{part}"
    concepts = read_columns(artifacts.pairs(category), "pair_id", "concept")
    pairs = take_part(load_latents(artifacts.latents(category)), concepts, part)
    folder = artifacts.part(run)
    train_and_save(
        ModelSource(**params.base_model.weights), {category: pairs},
        recipe_of_part(Recipe.of(params.experts.model_dump(), params.seed), len(pairs)),
        Outputs(folder, folder / "training.json", folder / "steps.csv",
                artifacts.checkpoints(f"parts/{run}"), artifacts.live(f"parts/{run}")),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
