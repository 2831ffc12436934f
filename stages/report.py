"""Builds the HTML page that shows what was gained and what it cost."""

from pipeline import artifacts
from pipeline.benchmarks import load_kinds
from pipeline.cli import run_stage
from pipeline.evaluate.judged import load_judged, verdicts_by_image
from pipeline.params import load_params
from pipeline.records import BenchmarkImage
from pipeline.report.build import build_report
from pipeline.report.data import ReportData
from pipeline.report.provenance import provenance
from pipeline.storage import read_csv, read_json, read_rows


def main() -> None:
    params = load_params()
    variants, categories = list(params.variants), params.taxonomy.categories
    summary, rule = read_json(artifacts.SUMMARY), params.judges.rule
    build_report(artifacts.REPORT, ReportData(
        rule=rule, shipped=params.merge.method, benchmarks=load_kinds(params.benchmarks),
        evaluations={v: read_json(artifacts.evaluation(v)) for v in variants},
        comparisons=summary["against"],
        pairs={c: read_json(artifacts.pair_metrics(c)) for c in categories},
        merge=read_json(artifacts.MERGE_METRICS), expert_map=artifacts.MERGE_MAP,
        training={c: read_csv(artifacts.expert_steps(c)) for c in categories}
        | {"joint": read_csv(artifacts.JOINT_STEPS)},
        images={v: read_rows(artifacts.benchmark(v), BenchmarkImage) for v in variants},
        verdicts=verdicts_by_image(
            (load_judged(artifacts.benchmark_scores(v), v) for v in variants), rule
        ),
        rows=params.report.rows_per_benchmark, provenance=provenance(artifacts.PARAMS, summary),
    ))  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
