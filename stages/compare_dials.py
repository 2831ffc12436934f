"""Compares LoRAs over their strength dials: which removes most at no measurable cost."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.dial import Outcome
from pipeline.fronts import Dial, save_fronts
from pipeline.params import load_params
from pipeline.storage import read_csv, read_rows


def main() -> None:
    params = load_params()
    names = params.dial.benchmarks
    kinds = {name: params.benchmarks.sets[name].kind for name in names}
    dials = {
        m: Dial(read_csv(artifacts.dial_curve(m)), read_rows(artifacts.dial_outcomes(m), Outcome))
        for m in params.dial.models
    }
    save_fronts(
        artifacts.FRONTS, artifacts.FRONTS_FIGURE, dials,
        next(name for name in names if kinds[name] == "unsafe"),
        [name for name in names if kinds[name] == "benign"],
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
