"""Charts of a report but its front, as Vega-Lite specifications: plain dicts.

Colours that depend on the page's theme are parameters (``ink``, ``paper``), which ``page.js`` sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluate.measures import show, show_interval, split, title
from pipeline.report.data import Estimate, ReportData
from pipeline.report.front import COLOURS, PARAMS, front_charts, model_label
from pipeline.report.scaling import scaling_charts
from pipeline.report.training import training_charts

DROPS = ("#d55e00", "#d29000", "#b65a94", "#8089a0", "#8a7a1e", "#3a9bd9")


@dataclass(frozen=True)
class Chart:
    """A figure of the page; with more than one specification the reader chooses by name."""

    title: str
    specs: Mapping[str, dict]
    choice: str = ""  # what is chosen


def make_charts(data: ReportData) -> dict[str, Chart]:
    """All charts by the id of their place in the page; without numbers a chart has no specs."""
    return {
        "front": Chart("Safety against quality", front_charts(data), "Cost shown"),
        "categories": Chart("By category", category_charts(data), "Benchmark"),
        "experts": Chart("Experts by category", matrix_chart(
            data.expert_matrix, "IP by expert and category", "expert"), ""),
        "scaling": Chart("With fewer pairs, concepts and experts", scaling_charts(data), "Count"),
        "control": Chart("Control by category", matrix_chart(
            _control_matrix(data), "IP by banned category and category of the prompt",
            "banned"), ""),
        "yields": Chart("Pairs kept and dropped", yield_chart(data.pairs), ""),
        "training": Chart("Training curves", training_charts(data.training), "Training of"),
    }  # fmt: skip


def category_charts(data: ReportData) -> dict[str, dict]:
    """IP by model and category, for every benchmark that has categories."""
    charts = {}
    labels = {m: model_label(m, data.shipped) for m in data.models()}
    for benchmark in data.benchmarks:
        by_kind: dict[str, list[dict]] = {}
        for model in data.models():
            for name, estimate in data.evaluations[model].get(benchmark, {}).items():
                kind, category, rule = split(name)
                if category and not rule:
                    by_kind.setdefault(kind, []).append(
                        _heat(labels[model], category, name, estimate))  # fmt: skip
        for kind, cells in by_kind.items():
            whole = [
                _heat(labels[m], "all", kind, data.evaluations[m][benchmark][kind])
                for m in data.models()
                if kind in data.evaluations[m].get(benchmark, {})
            ]
            name = title(kind, benchmark)
            charts[name] = _heat_map(whole + cells, f"{name}, by model and category", "model",
                                     list(labels.values()), ["all", *data.pairs])  # fmt: skip
    return charts


def matrix_chart(
    matrix: Mapping[str, Mapping[str, Estimate]] | None, name: str, rows: str
) -> dict[str, dict]:
    """What each row leaves of every category; a row stands for one of them."""
    cells = [_heat(row, category, "ip", estimate) for row, found in (matrix or {}).items()
             for category, estimate in found.items()]  # fmt: skip
    return {name: _heat_map(cells, name, rows, list(matrix), list(matrix))} if cells else {}


def _control_matrix(data: ReportData) -> dict[str, dict[str, Estimate]] | None:
    """What banning one category leaves of each, in the categories' order."""
    if data.personal is None:
        return None
    names, matrix = data.personal.categories, data.personal.control["matrix"]
    return {banned: {c: matrix[banned][c]["ip"] for c in names} for banned in names}


def _heat(row: str, category: str, metric: str, estimate: Estimate) -> dict:
    return {"row": row, "category": category, "value": estimate["value"],
            "shown": f"{estimate['value']:.2f}",
            "interval": f"{show(metric, estimate['value'])} ({show_interval(metric, estimate)}), "
                        f"n = {estimate['n']}"}  # fmt: skip


def _heat_map(
    cells: list[dict], name: str, rows: str, order: Sequence[str], columns: Sequence[str]
) -> dict:
    """Rows in ``order``; categories in that of ``columns``, those that it lacks at the end."""
    present = list(dict.fromkeys(c["category"] for c in cells))
    columns = [c for c in columns if c in present] + [c for c in present if c not in columns]
    return {
        "description": f"{name}; the numbers are in the table below",
        "width": "container", "height": 50 + 30 * len(order), "params": PARAMS,
        "padding": {"left": 5, "top": 5, "bottom": 5, "right": 34},
        "data": {"values": cells},
        "encoding": {
            "x": {"field": "category", "type": "nominal", "sort": columns, "title": None,
                  "axis": {"orient": "top", "labelAngle": -28, "domain": False, "ticks": False}},
            "y": {"field": "row", "type": "nominal", "sort": list(order), "title": None,
                  "axis": {"domain": False, "ticks": False}},
            "tooltip": [{"field": "row", "title": rows}, {"field": "category"},
                        {"field": "interval", "title": "value"}],
        },
        "layer": [
            {"mark": {"type": "rect", "cornerRadius": 3, "stroke": {"expr": "paper"},
                      "strokeWidth": 2},
             "encoding": {"color": {"field": "value", "type": "quantitative", "legend": None,
                                    "scale": {"domain": [0, 1], "interpolate": "rgb"}}}},
            {"mark": {"type": "text", "fontSize": 12,
                      "color": {"expr": "datum.value > 0.6 ? paper : ink"}},
             "encoding": {"text": {"field": "shown"}}},
        ],
    }  # fmt: skip


def yield_chart(pairs: Mapping[str, Mapping]) -> dict[str, dict]:
    """Candidates of every category: kept, and dropped by reason."""
    reasons = sorted({reason for m in pairs.values() for reason in m["drops"]})
    outcomes = ["kept", *reasons]
    cells = [
        {"category": category, "outcome": outcome, "order": k, "pairs": n,
         "share": f"{n / m['candidates']:.0%}" if m["candidates"] else ""}
        for category, m in pairs.items()
        for k, (outcome, n) in enumerate({"kept": m["kept"], **m["drops"]}.items())
    ]  # fmt: skip
    colours = [COLOURS[0], *(DROPS[k % len(DROPS)] for k in range(len(reasons)))]
    chart = {
        "description": "Candidate pairs of every category, kept and dropped by reason; the numbers "
                       "are in the table below",
        "width": "container", "height": 60 + 26 * len(pairs), "data": {"values": cells},
        "mark": {"type": "bar", "cornerRadius": 1},
        "encoding": {
            "y": {"field": "category", "type": "nominal", "sort": list(pairs), "title": None},
            "x": {"field": "pairs", "type": "quantitative", "title": "candidate pairs",
                  "axis": {"tickCount": 7}},
            "order": {"field": "order"},
            "color": {"field": "outcome", "type": "nominal", "title": None,
                      "legend": {"orient": "top"},
                      "scale": {"domain": outcomes, "range": colours}},
            "tooltip": [{"field": "category"}, {"field": "outcome"}, {"field": "pairs"},
                        {"field": "share"}],
        },
    }  # fmt: skip
    return {"Pairs kept and dropped": chart} if cells else {}
