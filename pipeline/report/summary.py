"""The results as Markdown tables: ``python -m pipeline.report.summary``.

With ``--fronts`` or ``--dial MODEL`` those of `dvc repro studies/dvc.yaml`.
"""

import argparse

from pipeline.artifacts import FRONTS, SUMMARY, dial_curve, evaluation
from pipeline.benchmarks import load_kinds
from pipeline.params import load_params
from pipeline.report.markdown import LEGEND, dial_table, fronts_table, summary_table
from pipeline.storage import read_csv, read_json


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fronts", action="store_true", help="models at their best scales")
    parser.add_argument("--dial", metavar="MODEL", help="a model's metrics against its scale")
    args = parser.parse_args()
    if args.fronts:
        print(fronts_table(read_json(FRONTS)))
        return
    params = load_params()
    benchmarks = load_kinds(params.benchmarks)
    if args.dial:
        print(dial_table(read_csv(dial_curve(args.dial)), benchmarks))
        return
    evaluations = {v: read_json(evaluation(v)) for v in params.variants}
    tests = read_json(SUMMARY)
    table = summary_table(evaluations, benchmarks, tests["against"], tests["shipped"])
    print(table, LEGEND, sep="\n\n")


if __name__ == "__main__":
    main()
