"""Keeps one category's pairs that are what they claim to be, and counts what it drops."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.pairs.build import PairGates, select_pairs, stream_pairs
from pipeline.pairs.judged import read_scores
from pipeline.params import load_params
from pipeline.records import PreferencePair, PromptPair
from pipeline.storage import private_folder, read_rows, write_csv, write_json, write_rows


def main(category: str) -> None:
    params = load_params()
    gates = PairGates(rule=params.judges.rule, **params.pairs.model_dump())
    images, scored = artifacts.images(category), read_scores(artifacts.scores(category))
    prompts = read_rows(artifacts.prompts(category), PromptPair)
    selection = select_pairs(prompts, images, scored, gates)
    private_folder(artifacts.pairs(category).parent)
    rows = stream_pairs(selection, images, scored)
    write_rows(artifacts.pairs(category), PreferencePair, rows)
    write_json(artifacts.pair_metrics(category), selection.metrics)
    write_csv(artifacts.pair_plot(category), selection.histograms)


if __name__ == "__main__":
    run_stage(main)
