"""Builds the report with what the studies measured: experts alone, dials, scaling curves."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.report.build import build_report
from pipeline.report.read import read_report, with_studies


def main() -> None:
    params = load_params()
    categories = params.taxonomy.categories
    data = read_report(
        params.variants, categories, params.benchmarks, params.merge.method, params.judges.rule,
        params.report.rows_per_benchmark, params.psa.adapter.form == "gated",
    )  # fmt: skip
    studied = with_studies(data, categories, params.alone.benchmarks, params.dial.models)
    build_report(artifacts.STUDIES_REPORT, studied)


if __name__ == "__main__":
    run_stage(main)
