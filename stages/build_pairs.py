"""Keeps one category's pairs that are what they claim to be, and counts what it drops."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.pairs import PairGates, build_pairs
from pipeline.params import load_params
from pipeline.records import DrawnImage, PreferencePair, PromptPair, Score
from pipeline.storage import private_folder, read_rows, write_json, write_rows


def main(category: str) -> None:
    params = load_params()
    p = params.pairs
    pairs, metrics = build_pairs(
        read_rows(artifacts.prompts(category), PromptPair),
        read_rows(artifacts.images(category), DrawnImage),
        read_rows(artifacts.scores(category), Score),
        PairGates(params.judges.rule, p.min_similarity, p.max_similarity, p.min_pairs),
    )
    private_folder(artifacts.pairs(category).parent)
    write_rows(artifacts.pairs(category), PreferencePair, pairs)
    write_json(artifacts.pair_metrics(category), metrics)


if __name__ == "__main__":
    run_stage(main)
