"""Who the users are and what they ban; their splits, vectors and levels of strictness."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.llm.engines import load_engine
from pipeline.params import load_params
from pipeline.personal import simulate
from pipeline.personal.files import save_space
from pipeline.personal.profiles import read_profiles
from pipeline.personal.space import EncoderSettings
from pipeline.records import User
from pipeline.storage import private_folder, write_csv, write_json, write_rows
from pipeline.taxonomy import load_categories


def main() -> None:
    params = load_params()
    u, floor = params.users, params.policy.floor
    categories = load_categories(params.taxonomy.folder, params.taxonomy.categories)
    engine = load_engine(**params.llm.loading) if u.bans == "llm" else None
    told = read_profiles(u.profiles) if u.profiles else simulate.draw_users(u.count, params.seed)
    bans, faults = simulate.decide_bans(
        told, {name: c.definition for name, c in categories.items()}, floor, params.seed, engine,
        u.max_attempts,
    )  # fmt: skip
    encoder = EncoderSettings(u.encoder, u.encoder_model, u.encoder_revision)
    population = simulate.make_population(
        told, bans, params.taxonomy.categories, floor, encoder, u.splits.model_dump(), u.levels,
        params.seed,
    )  # fmt: skip
    private_folder(artifacts.USERS.parent)
    write_rows(artifacts.USERS, User, population.rows)
    save_space(artifacts.USER_SPACE, population.space)
    write_json(artifacts.USER_METRICS, simulate.summarize(population) | {"faults": faults})
    write_csv(artifacts.USER_LEVELS, simulate.level_plot(population))


if __name__ == "__main__":
    run_stage(main)
