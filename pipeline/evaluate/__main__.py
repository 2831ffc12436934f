"""Command line of evaluation: ``python -m pipeline.evaluate gate``."""

import argparse
import sys

from pipeline.artifacts import benchmark_spec
from pipeline.benchmarks import load_spec
from pipeline.cli import run_command
from pipeline.evaluate.gate import run_gate, show
from pipeline.params import load_params


def main() -> None:
    """Parse the command line and run the gate; status 1 when a metric regressed."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    gate = commands.add_parser(
        "gate", help="fail when a metric worsened against a git revision",
        description="Compare metrics/evaluation/ of the working tree with those committed at a "
        "revision. Fails, with status 1, when a metric is worse by more than its 95 %% interval "
        "there, stands on fewer images, or is gone.",
    )  # fmt: skip
    gate.add_argument("--rev", default="HEAD", help="git revision to compare with (default HEAD)")
    gate.add_argument("--models", nargs="+", metavar="MODEL",
                      help="variants to look at (default: base and what ships)")  # fmt: skip
    args = parser.parse_args()
    run_command("gate", lambda: _gate(args.rev, args.models))


def _gate(revision: str, models: list[str] | None) -> None:
    params = load_params()
    models = models or ["base", params.merge.method]
    kinds = {name: load_spec(benchmark_spec(name)).kind for name in params.benchmarks}
    regressions = run_gate(revision, models, kinds)
    for regression in regressions:
        print(show(regression))
    if regressions:
        sys.exit(f"gate: {len(regressions)} metrics of {', '.join(models)} are worse than at "
                 f"{revision} by more than their intervals, on fewer images, or gone")  # fmt: skip
    print(f"gate: no metric of {', '.join(models)} is worse than at {revision}")


if __name__ == "__main__":
    main()
