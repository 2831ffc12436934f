"""The results as Markdown tables: ``python -m pipeline.report.summary``.

With another option than --side-effects those of `dvc repro studies/dvc.yaml`.
"""

import argparse

from pipeline.artifacts import (
    COMPARISONS,
    DATA_CURVE,
    FORMS,
    FRONTS,
    MERGE_CURVE,
    PSA_METHODS,
    PSA_METRICS,
    SIDE_EFFECTS,
    alone_metrics,
    benchmark_spec,
    dial_curve,
    evaluation,
)
from pipeline.benchmarks import load_spec
from pipeline.params import load_params
from pipeline.records import BENIGN
from pipeline.report.data import PSA
from pipeline.report.markdown import (
    LEGEND,
    WORDS_LEGEND,
    people_table,
    side_effects_table,
    summary_table,
)
from pipeline.report.markdown_studies import alone_table, curve_tables, dial_table, fronts_table
from pipeline.report.personal_tables import UNSEEN
from pipeline.storage import read_csv, read_json, read_table


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--fronts", action="store_true", help="models at their best scales")
    which.add_argument("--dial", metavar="MODEL", help="a model's metrics against its scale")
    which.add_argument("--alone", action="store_true", help="experts one by one")
    which.add_argument("--scaling", action="store_true",
                       help="IP against the number of pairs, concepts and experts")  # fmt: skip
    which.add_argument("--psa", action="store_true",
                       help="what unseen users are shown, by every method")  # fmt: skip
    which.add_argument("--side-effects", action="store_true",
                       help="which benign words every model draws otherwise")  # fmt: skip
    args = parser.parse_args()
    if args.side_effects:
        print(side_effects_table(read_json(SIDE_EFFECTS)), WORDS_LEGEND, sep="\n\n")
    elif args.fronts:
        print(fronts_table(read_json(FRONTS)))
    elif args.scaling:
        print(curve_tables(read_table(DATA_CURVE), read_table(MERGE_CURVE)))
    elif args.psa:
        forms = read_json(FORMS) if FORMS.exists() else {}
        ours = {PSA: read_json(PSA_METRICS)}
        print(people_table(ours | forms | read_json(PSA_METHODS), UNSEEN))
    else:
        _print_measured(args.dial, args.alone)


def _print_measured(dial: str | None, alone: bool) -> None:
    params = load_params()
    kinds = {name: load_spec(benchmark_spec(name)).kind for name in params.benchmarks}
    if dial:
        print(dial_table(read_csv(dial_curve(dial)), kinds))
    elif alone:
        found = {c: read_json(alone_metrics(c)) for c in params.taxonomy.categories}
        names = params.alone.benchmarks
        benign = [name for name in names if kinds[name] == BENIGN]
        print(alone_table(found, next(n for n in names if n not in benign), benign))
    else:
        evaluations = {v: read_json(evaluation(v)) for v in params.variants}
        tests = read_json(COMPARISONS)
        table = summary_table(evaluations, kinds, tests["against"], tests["shipped"])
        print(table, LEGEND, sep="\n\n")


if __name__ == "__main__":
    main()
