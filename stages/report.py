"""Builds the HTML page that shows what was gained and what it cost."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.report.build import build_report
from pipeline.report.read import read_report
from pipeline.report.read_personal import with_personal


def main() -> None:
    params = load_params()
    data = read_report(
        list(params.variants), params.taxonomy.categories, params.benchmarks,
        params.merge.method, params.judges.rule, params.report.rows_per_benchmark,
    )  # fmt: skip
    build_report(artifacts.REPORT, with_personal(data, params.psa.adapter.form == "gated"))


if __name__ == "__main__":
    run_stage(main)
