"""The scaling curves: IP against the number of pairs, of concepts and of merged experts."""

from collections.abc import Mapping, Sequence

from pipeline.evaluate.measures import show, show_interval, title
from pipeline.report.data import ReportData
from pipeline.report.front import COLOURS

Row = Mapping[str, str]  # of a curve as stored
BY = {"pairs": "pairs of all concepts", "concepts": "all pairs of some concepts"}
THEIRS, OTHERS = "their categories", "the others"
COUNTS = {"pairs": "pairs an expert was trained on", "experts": "experts merged"}


def scaling_charts(data: ReportData) -> dict[str, dict]:
    """IP against each count, by the count's name; without rows there is no chart."""
    curves = {
        "pairs": [_point(row, "pairs", BY[row["by"]]) for row in data.data_curve],
        "experts": [point for row in data.merge_curve for point in _merge_points(row)],
    }
    series = {"pairs": list(BY.values()), "experts": [THEIRS, OTHERS]}
    return {COUNTS[name]: _chart(points, COUNTS[name], series[name])
            for name, points in curves.items() if points}  # fmt: skip


def _point(row: Row, count: str, series: str) -> dict:
    ends = {key: float(row[key]) for key in ("low", "high")}
    return {"count": float(row[count]), "series": series, "ip": float(row["ip"]), **ends,
            "shown": f"{_rate(row)}, n = {row['n']}"}  # fmt: skip


def _merge_points(row: Row) -> list[dict]:
    """What is left of the merged categories and, without an interval, of the rest."""
    points = [_point(row, "experts", THEIRS)]
    if row["others"]:
        others = float(row["others"])
        points.append({"count": float(row["experts"]), "series": OTHERS, "ip": others,
                       "shown": show("ip", others)})  # fmt: skip
    return points


def _chart(points: list[dict], count: str, series: Sequence[str]) -> dict:
    x = {"field": "count", "type": "quantitative", "title": count,
         "axis": {"tickMinStep": 1, "tickCount": 10}}  # fmt: skip
    y = {"type": "quantitative", "title": f"{title('ip')} (lower is better ↓)",
         "scale": {"domain": [0, 1]}}  # fmt: skip
    used = [s for s in series if any(p["series"] == s for p in points)]
    return {
        "description": f"{title('ip')} against {count}, with 95 % intervals; the numbers are in "
                       "the table below",
        "width": "container", "height": 260, "data": {"values": points},
        "encoding": {
            "x": x, "y": y | {"field": "ip"},
            "color": {"field": "series", "type": "nominal", "title": None,
                      "legend": {"orient": "top", "symbolOpacity": 1},
                      "scale": {"domain": used, "range": list(COLOURS[:len(used)])}},
        },
        "layer": [
            {"transform": [{"filter": "isValid(datum.low)"}],
             "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.7},
             "encoding": {"y": y | {"field": "low"}, "y2": {"field": "high"}}},
            {"mark": {"type": "line", "strokeWidth": 1.7}},
            {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 70},
             "encoding": {"tooltip": [{"field": "series", "title": "IP of"},
                                      {"field": "count", "title": count, "format": ".3~g"},
                                      {"field": "shown", "title": "IP"}]}},
        ],
    }  # fmt: skip


def data_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: what experts were trained on, and the IP of their own categories."""
    return ["pairs of", "pairs an expert", "IP on its category", "n"], [
        [f"{row['size']} of its concepts" if row["by"] == "concepts" else "all concepts",
         f"{float(row['pairs']):.0f}", _rate(row), row["n"]]
        for row in rows
    ]  # fmt: skip


def merge_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: how many experts were merged, what is left and what it cost.

    Of the other categories and the costs values alone are stored.
    """
    costs = [name for name in rows[0] if "/" in name]
    parts = {name: name.partition("/") for name in costs}
    return [
        "experts merged", "IP, their categories", "n", "IP, the others",
        *(title(metric, benchmark) for benchmark, _, metric in parts.values()),
    ], [
        [row["experts"], _rate(row), row["n"], row["others"] and show("ip", float(row["others"])),
         *(show(parts[name][2], float(row[name])) for name in costs)]
        for row in rows
    ]  # fmt: skip


def _rate(row: Row) -> str:
    bounds = {key: float(row[key]) for key in ("low", "high")}
    return f"{show('ip', float(row['ip']))} ({show_interval('ip', bounds)})"
