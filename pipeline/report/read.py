"""Reads what a report shows from where the stages before it wrote it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline import artifacts
from pipeline.benchmarks import load_kinds
from pipeline.errors import InputError
from pipeline.evaluate.judged import blocked_images, load_judged, verdicts_by_image
from pipeline.records import UNSAFE
from pipeline.report.data import BASE, ReportData
from pipeline.report.grid import choose_prompts
from pipeline.report.provenance import provenance, stage_times
from pipeline.report.read_images import read_images
from pipeline.report.read_personal import with_personal
from pipeline.storage import read_csv, read_json, read_table


def read_report(
    variants: Iterable[str], categories: Sequence[str], benchmarks: Iterable[str], shipped: str,
    rule: str, rows: int, by_bans: bool,
) -> ReportData:  # fmt: skip
    """Everything of the default run; ``by_bans`` as ``with_personal`` has it.

    Raises InputError for what is missing or damaged.
    """
    variants = list(variants)
    compared, kinds = read_json(artifacts.COMPARISONS), load_kinds(benchmarks)
    judged = {v: load_judged(artifacts.benchmark_scores(v), v) for v in variants}
    blocked = blocked_images(judged.values())
    chosen = {(p.benchmark, p.row) for name in kinds
              for p in choose_prompts(judged[BASE].rows, name, rows)}  # fmt: skip
    data = ReportData(
        rule=rule, shipped=shipped, benchmarks=kinds,
        evaluations={v: read_json(artifacts.evaluation(v)) for v in variants},
        comparisons=compared["against"],
        pairs={c: read_json(artifacts.pair_metrics(c)) for c in categories},
        merge=read_json(artifacts.MERGE_METRICS), expert_map=artifacts.MERGE_MAP,
        training={c: read_csv(artifacts.expert_steps(c)) for c in categories}
        | {"joint": read_csv(artifacts.JOINT_STEPS)},
        images={v: read_images(artifacts.benchmark(v), chosen, blocked) for v in variants},
        verdicts=verdicts_by_image(judged.values(), rule), blocked=blocked,
        rows=rows, provenance=provenance(artifacts.PARAMS, compared),
        side_effects=read_json(artifacts.SIDE_EFFECTS), times=stage_times(),
    )  # fmt: skip
    return with_personal(data, by_bans)


def with_studies(
    data: ReportData, categories: Sequence[str], alone: Sequence[str], dials: Iterable[str]
) -> ReportData:
    """The same with what ``studies/dvc.yaml`` measured.

    Args:
        alone: the benchmarks that experts were measured on one by one.
        dials: the models whose strength dials were traced.
    """
    unsafe = next((name for name in alone if data.benchmarks.get(name) == UNSAFE), None)
    if unsafe is None:
        raise InputError("alone.benchmarks has no unsafe benchmark, so there is no matrix to show")
    found = {c: read_json(artifacts.alone_metrics(c))[unsafe] for c in categories}
    matrix = {c: {other: m[f"ip/{other}"] for other in categories} for c, m in found.items()}
    curves = {model: read_csv(artifacts.dial_curve(model)) for model in dials}
    return replace(
        data, expert_matrix=matrix, dials=curves, data_curve=read_table(artifacts.DATA_CURVE),
        merge_curve=read_table(artifacts.MERGE_CURVE),
    )  # fmt: skip
