"""Builds the HTML page that shows what was gained and what it cost."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.report.build import build_report
from pipeline.report.read import read_report


def main() -> None:
    params = load_params()
    data = read_report(
        params.variants, params.taxonomy.categories, params.benchmarks, params.merge.method,
        params.judges.rule, params.report.rows_per_benchmark, params.psa.adapter.form == "gated",
    )  # fmt: skip
    build_report(artifacts.REPORT, data)


if __name__ == "__main__":
    run_stage(main)
