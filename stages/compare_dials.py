"""Compares LoRAs over their strength dials: which removes most at no measurable cost."""

from pipeline import artifacts
from pipeline.benchmarks import load_kinds
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.storage import read_csv, read_rows
from pipeline.studies.dial import Outcome
from pipeline.studies.fronts import Dial, save_fronts, split_kinds


def main() -> None:
    params = load_params()
    dials = {
        m: Dial(read_csv(artifacts.dial_curve(m)), read_rows(artifacts.dial_outcomes(m), Outcome))
        for m in params.dial.models
    }
    save_fronts(
        artifacts.FRONTS, artifacts.FRONTS_FIGURE, dials,
        *split_kinds(load_kinds(params.dial.benchmarks)), params.dial.whole,
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
