"""Trains the user adapter in another form, to be measured beside the one that ships."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.latents import load_latents
from pipeline.params import load_params
from pipeline.personal.files import load_space
from pipeline.personal.training import PersonalOutputs, PersonalRecipe, train_and_save
from pipeline.personal.user_pairs import build_user_pairs
from pipeline.records import User
from pipeline.sources import ModelSource
from pipeline.storage import read_column, read_rows


def main(name: str) -> None:
    params = load_params()
    form, folder = params.form(name), artifacts.form(name)
    users, categories = read_rows(artifacts.USERS, User), params.taxonomy.categories
    rows, _ = build_user_pairs(
        users, {c: read_column(artifacts.pairs(c), "pair_id") for c in categories},
        params.policy.floor, form.allowed, params.user_pairs.pairs_per_category, params.seed,
    )  # fmt: skip
    train_and_save(
        ModelSource(**params.base_model.weights),
        {c: load_latents(artifacts.latents(c)) for c in categories}, users, rows,
        load_space(artifacts.USER_SPACE),
        PersonalRecipe.of(form.recipe(params.psa).model_dump(), params.seed),
        PersonalOutputs(folder / artifacts.PSA.name, folder / "training.json", folder / "steps.csv",
                        artifacts.checkpoints(f"forms/{name}"), None),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
