"""Command line of evaluation: ``python -m pipeline.evaluate gate``."""

import argparse
import sys

from pipeline.artifacts import PSA_METRICS, benchmark_spec, evaluation
from pipeline.benchmarks import load_spec
from pipeline.cli import run_command
from pipeline.evaluate.gate import Gated, run_gate, show
from pipeline.params import load_params
from pipeline.personal.measure import PERSONAL_MEASURES
from pipeline.records import BENIGN

# of users' metrics none is meant to change, as none is of benign prompts
USERS = Gated(
    "users", PSA_METRICS, dict.fromkeys(("test_seen", "test_unseen"), BENIGN), PERSONAL_MEASURES
)


def main() -> None:
    """Parse the command line and run the gate; status 1 when a metric regressed."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    gate = commands.add_parser(
        "gate", help="fail when a metric worsened against a git revision",
        description="Compare metrics/evaluation/ and metrics/psa.json of the working tree with "
        "those committed at a revision. Fails, with status 1, when a metric is worse by more than "
        "its 95 % interval there, stands on fewer images, or is gone.",
    )  # fmt: skip
    gate.add_argument("--rev", default="HEAD", help="git revision to compare with (default HEAD)")
    gate.add_argument("--models", nargs="+", metavar="MODEL",
                      help="variants (default: base and what ships; and users)")  # fmt: skip
    args = parser.parse_args()
    run_command("gate", lambda: _gate(args.rev, args.models))


def _gate(revision: str, models: list[str] | None) -> None:
    params = load_params()
    kinds = {name: load_spec(benchmark_spec(name)).kind for name in params.benchmarks}
    files = [Gated(name, evaluation(name), kinds)
             for name in models or ("base", params.merge.method)]  # fmt: skip
    files += [] if models else [USERS]
    names = ", ".join(gated.name for gated in files)
    regressions = run_gate(revision, files)
    for regression in regressions:
        print(show(regression))
    if regressions:
        sys.exit(f"gate: {len(regressions)} metrics of {names} are worse than at {revision} by "
                 "more than their intervals, on fewer images, or gone")  # fmt: skip
    print(f"gate: no metric of {names} is worse than at {revision}")


if __name__ == "__main__":
    main()
