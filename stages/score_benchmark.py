"""Judges look at one model variant's benchmark images: raw scores, no thresholds."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.scoring.benchmarks import judge_folder
from pipeline.scoring.panel import load_panel


def main(variant: str) -> None:
    panel = load_panel(**load_params().judges.loading)
    judge_folder(artifacts.benchmark(variant), artifacts.benchmark_scores(variant), panel)


if __name__ == "__main__":
    run_stage(main)
