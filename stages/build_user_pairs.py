"""What each pair teaches for each user: the four-row rule under the policy floor."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.personal.user_pairs import build_user_pairs
from pipeline.records import User, UserPair
from pipeline.storage import private_folder, read_column, read_rows, write_json, write_rows


def main() -> None:
    params = load_params()
    pairs = {c: read_column(artifacts.pairs(c), "pair_id") for c in params.taxonomy.categories}
    rows, metrics = build_user_pairs(
        read_rows(artifacts.USERS, User), pairs, params.policy.floor,
        **params.user_pairs.model_dump(), base_seed=params.seed,
    )  # fmt: skip
    private_folder(artifacts.USER_PAIRS.parent)
    write_rows(artifacts.USER_PAIRS, UserPair, rows)
    write_json(artifacts.USER_PAIR_METRICS, metrics)


if __name__ == "__main__":
    run_stage(main)
