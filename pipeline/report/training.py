"""How the experts and the joint baseline were trained: curves and where they ended."""

import math
from collections.abc import Mapping, Sequence

from pipeline.report.front import COLOURS

Steps = Sequence[Mapping[str, float]]  # rows of a training's step metrics
# panel of the curves -> {series: column}
PANELS = {
    "chosen preferred, share": {"pair": "rewards/accuracies"},
    "reward margin": {"pair": "rewards/margins"},
    "error against base": {"chosen": "error/chosen_over_reference",
                           "rejected": "error/rejected_over_reference"},
    "loss": {"pair": "loss"},
}  # fmt: skip
SERIES = {"pair": COLOURS[0], "chosen": COLOURS[2], "rejected": COLOURS[1]}
PAIRS = {"trained on": "", "held out": "eval/"}  # which pairs -> prefix of their columns
OVERVIEW = "all, on held-out pairs"


def training_charts(training: Mapping[str, Steps]) -> dict[str, dict]:
    """Curves of all trainings together, on held-out pairs, and then of each, by name."""
    single = {name: _points(rows) for name, rows in training.items()}
    together = [
        {**point, "training": name, "panel": _overview_panel(point)}
        for name, points in single.items() for point in points
        if point["pairs"] == "held out" and point["panel"] != "loss"
    ]  # fmt: skip
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(training)}
    charts = {OVERVIEW: _panels(together, OVERVIEW, "training", colours)} if together else {}
    return charts | {name: _panels(points, name, "series", SERIES)
                     for name, points in single.items() if points}  # fmt: skip


def _points(rows: Steps) -> list[dict]:
    """Every finite value of the panels' columns."""
    return [
        {"step": row["step"], "value": float(f"{row[prefix + column]:.4g}"), "panel": panel,
         "series": series, "pairs": pairs}
        for panel, columns in PANELS.items() for series, column in columns.items()
        for pairs, prefix in PAIRS.items()
        for row in rows if math.isfinite(row.get(prefix + column, math.nan))
    ]  # fmt: skip


def _overview_panel(point: Mapping[str, object]) -> str:
    many = len(PANELS[point["panel"]]) > 1
    return f"{point['panel']}, {point['series']}" if many else point["panel"]


def _panels(points: list[dict], name: str, field: str, colours: Mapping[str, str]) -> dict:
    """One small chart per panel, a line per value of ``field``; ``page.js`` sets their widths."""
    used = [c for c in colours if any(p[field] == c for p in points)]
    encoding = {
        "x": {"field": "step", "type": "quantitative", "title": "step", "axis": {"tickCount": 5}},
        "y": {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False},
              "axis": {"tickCount": 5}},
        "color": {"field": field, "type": "nominal", "title": None, "legend": {"columns": 4},
                  "scale": {"domain": used, "range": [colours[c] for c in used]}},
        "strokeDash": {"field": "pairs", "type": "nominal", "title": None,
                       "scale": {"domain": list(PAIRS), "range": [[4, 3], [1, 0]]},
                       "legend": None},
        "tooltip": [{"field": field}, {"field": "pairs"}, {"field": "step"},
                    {"field": "value", "format": ".4~g"}],
    }  # fmt: skip
    return {
        "description": f"Training curves: {name}; the last values are in the table below",
        "data": {"values": points}, "spacing": 28, "config": {"legend": {"orient": "top"}},
        "concat": [
            {"title": {"text": panel, "fontWeight": "normal", "anchor": "start"},
             "height": 150, "transform": [{"filter": {"field": "panel", "equal": panel}}],
             "mark": {"type": "line", "point": {"size": 16}, "strokeWidth": 1.7},
             "encoding": encoding}
            for panel in dict.fromkeys(p["panel"] for p in points)
        ],
    }  # fmt: skip


def training_ends(training: Mapping[str, Steps]) -> list[dict[str, str]]:
    """Last values of every training: on held-out pairs, or on its own pairs without any."""
    rows = []
    for name, steps in training.items():
        last = steps[-1] if steps else {}
        row = {"training": name, "step": f"{last.get('step', 0):.0f}"}
        for panel, columns in PANELS.items():
            for series, column in columns.items():
                value = last.get(f"eval/{column}", last.get(column))
                label = panel if len(columns) == 1 else f"{panel}, {series}"
                row[label] = "" if value is None else f"{value:.3f}"
        rows.append(row)
    return rows
