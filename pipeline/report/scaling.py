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
        "pairs": [_point(row, "pairs", BY[row["by"]], "ip") for row in data.data_curve],
        "experts": [
            _point(row, "experts", series, name)
            for row in data.merge_curve
            for series, name in ((THEIRS, "ip"), (OTHERS, "others"))
            if row[name]
        ],
    }
    series = {"pairs": list(BY.values()), "experts": [THEIRS, OTHERS]}
    return {COUNTS[name]: _chart(points, COUNTS[name], series[name])
            for name, points in curves.items() if points}  # fmt: skip


def _point(row: Row, count: str, series: str, name: str) -> dict:
    ends = {key: float(row[f"{name}/{key}"]) for key in ("low", "high")}
    return {"count": float(row[count]), "series": series, "ip": float(row[name]), **ends,
            "shown": f"{_estimate(row, name, 'ip')}, n = {row[f'{name}/n']}"}  # fmt: skip


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
            {"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.7},
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
         f"{float(row['pairs']):.0f}", _estimate(row, "ip", "ip"), row["ip/n"]]
        for row in rows
    ]  # fmt: skip


def merge_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: how many experts were merged, what is left and what it cost."""
    names = [name.removesuffix("/n") for name in rows[0] if name.endswith("/n")]
    heads = {"ip": "IP, their categories", "others": "IP, the others"}
    return [
        "experts merged",
        *(head for name in names for head in (heads.get(name) or _cost(name), "n")),
    ], [
        [row["experts"], *(cell for name in names for cell in _cells(row, name))]
        for row in rows
    ]  # fmt: skip


def _cost(name: str) -> str:
    benchmark, _, metric = name.partition("/")
    return title(metric, benchmark)


def _cells(row: Row, name: str) -> tuple[str, str]:
    metric = name.rpartition("/")[2] if "/" in name else "ip"
    return (_estimate(row, name, metric), row[f"{name}/n"]) if row[name] else ("", "")


def _estimate(row: Row, name: str, metric: str) -> str:
    bounds = {key: float(row[f"{name}/{key}"]) for key in ("low", "high")}
    return f"{show(metric, float(row[name]))} ({show_interval(metric, bounds)})"
