"""Gathers metrics and images into one self-contained HTML page that opens from disk.

Every image is blurred until it is clicked, safe or not, and the page lies in a private folder.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from pipeline.evaluate import group_rows
from pipeline.judges.rules import is_inappropriate
from pipeline.records import BenchmarkImage, Score
from pipeline.scores import scores_by_image
from pipeline.storage import private_folder, write_text

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]  # benchmark -> metric -> estimate
# column -> (title, whether lower is better)
COLUMNS = {
    "ip": ("IP", True), "clip_score": ("CLIPScore", False), "drawn": ("drawn", False),
    "over_block": ("over-block", True), "cmmd": ("CMMD to base", True),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One number of a table, as text, with its interval and whether it is the column's best."""

    text: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Picture:
    """One image of the grid: a data URI and the rule's verdict."""

    uri: str
    inappropriate: bool


@dataclass(frozen=True)
class GridRow:
    """One benchmark prompt, drawn by every variant from the same seed; named by id, not text."""

    title: str
    pictures: list[Picture]


def benchmark_table(evaluations: Mapping[str, Metrics], benchmark: str) -> dict[str, object]:
    """Variants by metrics of one benchmark, and the same by category for IP."""
    present = [c for c in COLUMNS if any(c in m[benchmark] for m in evaluations.values())]
    categories = sorted({k for m in evaluations.values() for k in m[benchmark] if "/" in k})
    return {
        "name": benchmark,
        "titles": [COLUMNS[c][0] for c in present],
        "rows": _table(evaluations, benchmark, present),
        "categories": [c.removeprefix("ip/") for c in categories],
        "category_rows": _table(evaluations, benchmark, categories),
    }


def _table(
    evaluations: Mapping[str, Metrics], benchmark: str, columns: Sequence[str]
) -> dict[str, list[Cell | None]]:
    best: dict[str, float] = {}
    for column in columns:
        found = [m[benchmark][column]["value"] for v, m in evaluations.items()
                 if column in m[benchmark] and not (v == "base" and column == "cmmd")]  # fmt: skip
        lower = COLUMNS.get(column, ("", True))[1]
        best[column] = (min(found) if lower else max(found)) if found else math.nan

    def cell(metrics: Metrics, column: str) -> Cell | None:
        estimate = metrics[benchmark].get(column)
        if estimate is None:
            return None
        return Cell(
            f"{estimate['value']:.3f}",
            f"{estimate['low']:.3f} to {estimate['high']:.3f}, n = {estimate['n']}",
            estimate["value"] == best[column],
        )

    return {v: [cell(m, c) for c in columns] for v, m in evaluations.items()}


def image_grid(
    images: Mapping[str, Sequence[BenchmarkImage]], scores: Mapping[str, Sequence[Score]],
    benchmark: str, rows: int, rule: str,
) -> list[GridRow]:  # fmt: skip
    """Up to ``rows`` prompts of a benchmark, spread over its categories, by every variant."""
    verdicts = {v: scores_by_image(rows_) for v, rows_ in scores.items()}
    chosen = group_rows(images["base"], benchmark, rows)
    index = {v: {(i.benchmark, i.row): i for i in some if i.redraw == 0}
             for v, some in images.items()}  # fmt: skip
    grid = []
    for example in chosen:
        pictures = []
        for variant, table in index.items():
            image = table[benchmark, example.row]
            pictures.append(Picture(
                _data_uri("image/png", image.image.bytes),
                is_inappropriate(rule, verdicts[variant][image.image_id]),
            ))  # fmt: skip
        label = " · ".join(filter(None, (example.category, f"row {example.row}")))
        grid.append(GridRow(label, pictures))
    return grid


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def build_report(
    path: Path, *, evaluations: Mapping[str, Metrics], pairs: Mapping[str, Mapping],
    merge: Mapping[str, object], expert_map: Path, images: Mapping[str, Sequence[BenchmarkImage]],
    scores: Mapping[str, Sequence[Score]], benchmarks: Sequence[str], rows: int, rule: str,
) -> None:  # fmt: skip
    """Write the page; see the module docstring."""
    template = jinja2.Template(
        (Path(__file__).parent / "page.html").read_text(encoding="utf-8"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    private_folder(path.parent)
    write_text(path, template.render(
        rule=rule, variants=list(evaluations), pairs=pairs, merge=merge,
        expert_map=_data_uri("image/svg+xml", expert_map.read_bytes()),
        tables=[benchmark_table(evaluations, b) for b in benchmarks],
        grids={b: image_grid(images, scores, b, rows, rule) for b in benchmarks},
    ))  # fmt: skip
