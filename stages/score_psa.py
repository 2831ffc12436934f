"""Judges look at what people are shown: raw scores, no thresholds."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.personal.scored import judge_methods
from pipeline.scoring.panel import load_panel


def main() -> None:
    panel = load_panel(**load_params().judges.loading)
    judge_methods(artifacts.PSA_IMAGES, artifacts.PSA_SCORES, panel)


if __name__ == "__main__":
    run_stage(main)
