"""Builds the report with what the studies measured: experts one by one, and strength dials."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.report.build import build_report
from pipeline.report.read import read_report, with_studies
from pipeline.report.read_personal import with_personal


def main() -> None:
    params = load_params()
    categories = params.taxonomy.categories
    data = read_report(
        list(params.variants), categories, params.benchmarks, params.merge.method,
        params.judges.rule, params.report.rows_per_benchmark,
    )  # fmt: skip
    build_report(
        artifacts.STUDIES_REPORT,
        with_studies(
            with_personal(data, params.psa.adapter.form == "gated"), categories,
            params.alone.benchmarks, params.dial.models,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
