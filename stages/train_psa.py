"""Trains the user adapter: one model that draws for each user inside their own boundary."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.latents import load_latents
from pipeline.params import load_params
from pipeline.personal.files import load_space
from pipeline.personal.training import PersonalOutputs, PersonalRecipe, train_and_save
from pipeline.records import User, UserPair
from pipeline.sources import ModelSource
from pipeline.storage import read_rows


def main() -> None:
    params = load_params()
    train_and_save(
        ModelSource(**params.base_model.weights),
        {c: load_latents(artifacts.latents(c)) for c in params.taxonomy.categories},
        read_rows(artifacts.USERS, User),
        read_rows(artifacts.USER_PAIRS, UserPair),
        load_space(artifacts.USER_SPACE),
        PersonalRecipe.of(params.psa.model_dump(), params.seed),
        PersonalOutputs(
            artifacts.PSA, artifacts.PSA_TRAINING, artifacts.PSA_STEPS,
            artifacts.checkpoints("psa"),
            artifacts.live("psa") if params.psa.watch.dvclive else None,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
