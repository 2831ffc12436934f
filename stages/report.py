"""Builds the HTML page that shows what was gained and what it cost."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.records import BenchmarkImage, Score
from pipeline.report.build import build_report
from pipeline.storage import read_json, read_rows


def main() -> None:
    params = load_params()
    variants = list(params.variants)
    build_report(
        artifacts.REPORT,
        evaluations={v: read_json(artifacts.evaluation(v)) for v in variants},
        pairs={c: read_json(artifacts.pair_metrics(c)) for c in params.taxonomy.categories},
        merge=read_json(artifacts.MERGE_METRICS), expert_map=artifacts.MERGE_MAP,
        images={v: read_rows(artifacts.benchmark(v), BenchmarkImage) for v in variants},
        scores={v: read_rows(artifacts.evaluation_scores(v), Score) for v in variants},
        benchmarks=list(params.benchmarks.sets), rows=params.report.rows_per_benchmark,
        rule=params.judges.rule,
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
