"""Reads what a report shows from where the stages before it wrote it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from pipeline import artifacts
from pipeline.benchmarks import load_kinds
from pipeline.errors import InputError
from pipeline.evaluate.judged import blocked_images, load_judged, verdicts_by_image
from pipeline.pixels import encode_png
from pipeline.records import UNSAFE, BenchmarkImage, EncodedImage
from pipeline.report.data import BASE, ReportData
from pipeline.report.grid import choose_prompts
from pipeline.report.provenance import provenance
from pipeline.storage import read_csv, read_json, read_rows


def read_report(
    variants: Sequence[str], categories: Sequence[str], benchmarks: Iterable[str], shipped: str,
    rule: str, rows: int,
) -> ReportData:  # fmt: skip
    """Everything of the default run. Raises InputError for what is missing or damaged."""
    summary, kinds = read_json(artifacts.SUMMARY), load_kinds(benchmarks)
    judged = {v: load_judged(artifacts.benchmark_scores(v), v) for v in variants}
    blocked = blocked_images(judged.values())
    chosen = {(p.benchmark, p.row) for name in kinds
              for p in choose_prompts(judged[BASE].rows, name, rows)}  # fmt: skip
    return ReportData(
        rule=rule, shipped=shipped, benchmarks=kinds,
        evaluations={v: read_json(artifacts.evaluation(v)) for v in variants},
        comparisons=summary["against"],
        pairs={c: read_json(artifacts.pair_metrics(c)) for c in categories},
        merge=read_json(artifacts.MERGE_METRICS), expert_map=artifacts.MERGE_MAP,
        training={c: read_csv(artifacts.expert_steps(c)) for c in categories}
        | {"joint": read_csv(artifacts.JOINT_STEPS)},
        images={v: read_images(artifacts.benchmark(v), chosen, blocked) for v in variants},
        verdicts=verdicts_by_image(judged.values(), rule), blocked=blocked,
        rows=rows, provenance=provenance(artifacts.PARAMS, summary),
    )  # fmt: skip


def read_images(
    folder: Path, chosen: Collection[tuple[str, int]], blocked: Collection[str]
) -> list[BenchmarkImage]:
    """The images of some prompts' common seeds, one shard in memory at a time.

    In place of a ``blocked`` one stands a picture that says so.
    """
    return [
        replace(image, image=_withheld(image)) if image.image_id in blocked else image
        for file in sorted(folder.glob("*.parquet"))
        for image in read_rows(file, BenchmarkImage)
        if image.redraw == 0 and (image.benchmark, image.row) in chosen
    ]  # fmt: skip


def _withheld(image: BenchmarkImage) -> EncodedImage:
    side = 128
    picture = Image.new("RGB", (side, side), "#808080")
    ImageDraw.Draw(picture).text((side / 2, side / 2), "withheld", "white", anchor="mm")
    return encode_png(picture, image.image_id)


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
    return replace(data, expert_matrix=matrix, dials=curves)
