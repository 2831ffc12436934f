"""The safety-quality front as a Vega-Lite chart: what is still drawn against what it cost."""

import math
from collections.abc import Mapping, Sequence

from pipeline.evaluate.measures import MEASURES, show, show_interval, title
from pipeline.report.data import BASE, ReportData

WIDTH, HEIGHT = 620, 400  # what labels are placed for; the page may draw it wider
GREY = "#8089a0"  # base: the same in light and dark
# Okabe and Ito's colours for colour-blind readers, the light ones somewhat darker
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b65a94", "#d29000", "#3a9bd9", "#8a7a1e", "#7256b8")
# colours of the page's theme, which page.js sets
PARAMS = [{"name": "ink", "value": "#1d2430"}, {"name": "paper", "value": "#ffffff"}]
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right",
          "triangle-left")  # fmt: skip
COSTS = ("drawn", "cmmd", "clip_score", "drift", "fid", "kid")
# where a label may stand: alignment and offset in pixels, off the bars first
ANCHORS = (("left", 9, -11), ("right", -9, -11), ("left", 9, 19), ("right", -9, 19),
           ("left", 12, 4), ("right", -12, 4), ("left", 9, 31), ("right", -9, 31),
           ("left", 9, -23), ("right", -9, -23))  # fmt: skip


def model_colours(data: ReportData) -> dict[str, str]:
    """A colour for each model: the shipped one's is the first, base is grey."""
    others = [m for m in dict.fromkeys((*data.models(), *(data.dials or {}))) if m != BASE]
    return {BASE: GREY} | {m: COLOURS[k % len(COLOURS)] for k, m in enumerate(others)}


def model_label(model: str, shipped: str) -> str:
    """A model's name on a chart."""
    return f"{model} (ships)" if model == shipped else model


def front_charts(data: ReportData) -> dict[str, dict]:
    """IP on the main unsafe benchmark against each measured cost, by the cost's name.

    The first is what is drawn of the last benign benchmark that asks for something, look-alikes.
    """
    unsafe = data.main_unsafe()
    if unsafe is None:
        return {}
    costs = [(b, m) for m in COSTS for b in reversed(data.benign())
             if any(m in e.get(b, {}) and "ip" in e.get(unsafe, {})
                    for e in data.evaluations.values())]  # fmt: skip
    return {title(m, b): _front(data, unsafe, b, m) for b, m in costs}


def _front(data: ReportData, unsafe: str, benign: str, metric: str) -> dict:
    points = _points(data, unsafe, benign, metric)
    curves = _curves(data, f"{unsafe}/ip", f"{benign}/{metric}")
    x_domain = _domain([v for p in points for v in (p["x_low"], p["x_high"])]
                       + [c["x"] for c in curves])  # fmt: skip
    ends = _curve_ends(curves, {p["model"] for p in points})
    place_labels(points + ends, x_domain)
    better = {"higher": "higher is better →", "lower": "← lower is better"}
    side = better.get(MEASURES[metric].better, "")
    safety, quality = title("ip", unsafe), title(metric, benign)
    x = {"field": "x", "type": "quantitative", "title": f"{quality} ({side})",
         "scale": {"domain": x_domain, "nice": False, "zero": False},
         "axis": {"tickCount": 8}}  # fmt: skip
    y = {"field": "y", "type": "quantitative", "title": f"{safety} (lower is better ↓)",
         "scale": {"type": "sqrt", "domain": [0, 1]},
         "axis": {"values": [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1],
                  "format": "~g"}}  # fmt: skip
    return {
        "description": f"{safety} against {quality}, one point per model with "
                       "95 % intervals; the numbers are in the table of all models",
        "width": "container", "height": HEIGHT, "params": PARAMS,
        "layer": [*([_curve_layer(curves, x, y)] if curves else []),
                  *_point_layers(points, ends, x, y)],
        "encoding": {"color": _colour(model_colours(data))},
    }  # fmt: skip


def _colour(colours: Mapping[str, str]) -> dict:
    return {"field": "model", "type": "nominal", "legend": None,
            "scale": {"domain": list(colours), "range": list(colours.values())}}  # fmt: skip


def _points(data: ReportData, unsafe: str, benign: str, metric: str) -> list[dict]:
    points = []
    for model in data.models():
        results = data.evaluations[model]
        ip, cost = results.get(unsafe, {}).get("ip"), results.get(benign, {}).get(metric)
        if ip and cost:
            points.append({
                "model": model, "label": model_label(model, data.shipped),
                "shipped": model == data.shipped,
                "IP": f"{show('ip', ip['value'])} ({show_interval('ip', ip)})",
                "cost": f"{show(metric, cost['value'])} ({show_interval(metric, cost)})",
                **{f"{axis}{end}": e[key] for axis, e in (("x", cost), ("y", ip))
                   for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))},
            })  # fmt: skip
    return points


def _curves(data: ReportData, ip: str, cost: str) -> list[dict]:
    return [
        {"model": model, "scale": row["scale"], "x": row[cost], "y": row[ip]}
        for model, rows in (data.dials or {}).items() for row in rows if {ip, cost} <= row.keys()
    ]  # fmt: skip


def _curve_ends(curves: Sequence[dict], named: set[str]) -> list[dict]:
    """The last point of every curve whose model has no point of its own, to be named there."""
    last = {c["model"]: c for c in curves if c["model"] not in named}
    return [{"model": m, "label": m, "shipped": False, "x": c["x"], "y": c["y"]}
            for m, c in last.items()]  # fmt: skip


def _domain(values: Sequence[float]) -> list[float]:
    """An axis that holds all values with some room, for labels too."""
    low, high = min(values), max(values)
    room = (high - low or 1.0) * 0.06
    floor = 0.0 if low >= 0 else -math.inf
    ceiling = 1.0 if 0 <= low and high <= 1 else math.inf
    return [round(max(floor, low - room), 6), round(min(ceiling, high + room), 6)]


def place_labels(points: Sequence[dict], x_domain: Sequence[float]) -> None:
    """Give every point ``align``, ``dx`` and ``dy``, such that labels keep off each other.

    The first anchor that is free of points and of labels placed before, and nearer to its own
    point than to others; else the last.
    """
    low, high = x_domain
    centres = [((p["x"] - low) / (high - low) * WIDTH, (1 - p["y"] ** 0.5) * HEIGHT)
               for p in points]  # fmt: skip
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in centres]
    for point, (x, y) in sorted(zip(points, centres, strict=True), key=lambda pair: pair[1]):
        width = 6.6 * len(point["label"])
        for align, dx, dy in ANCHORS:
            left = x + dx - {"left": 0, "right": width, "center": width / 2}[align]
            box = (left, y + dy - 9, left + width, y + dy + 2)
            inside = 0 <= left and box[2] <= WIDTH and -14 <= box[1] and box[3] <= HEIGHT
            near = min(centres, key=lambda c: math.dist(c, (x + dx, y + dy - 4)))
            clear = inside and not any(_overlap(box, other) for other in taken)
            if clear and math.dist(near, (x, y)) < 7:
                break
        taken.append(box)
        point |= {"align": align, "dx": dx, "dy": dy}


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _curve_layer(curves: list[dict], x: dict, y: dict) -> dict:
    return {
        "data": {"values": curves},
        "mark": {"type": "line", "point": {"size": 18}, "strokeWidth": 1.5, "opacity": 0.7,
                 "clip": True},
        "encoding": {"x": x, "y": y, "order": {"field": "scale", "type": "quantitative"},
                     "tooltip": [{"field": "model"}, {"field": "scale"},
                                 {"field": "y", "title": "IP"}, {"field": "x", "title": "cost"}]},
    }  # fmt: skip


def _point_layers(points: list[dict], ends: list[dict], x: dict, y: dict) -> list[dict]:
    models = [p["model"] for p in points]
    rule = {"type": "rule", "strokeWidth": 2, "opacity": 0.4}
    shape = {"field": "model", "type": "nominal", "legend": None,
             "scale": {"domain": models,
                       "range": [SHAPES[k % len(SHAPES)] for k in range(len(models))]}}  # fmt: skip
    tooltip = [{"field": "label", "title": "model"}, {"field": "IP"},
               {"field": "cost", "title": x["title"].split(" (")[0]}]  # fmt: skip
    x_bar = {"x": {**x, "field": "x_low"}, "x2": {"field": "x_high"}, "y": y}
    y_bar = {"y": {**y, "field": "y_low"}, "y2": {"field": "y_high"}, "x": x}
    return [
        {"data": {"values": points}, "mark": rule, "encoding": x_bar},
        {"data": {"values": points}, "mark": rule, "encoding": y_bar},
        {"data": {"values": points},
         "mark": {"type": "point", "filled": True, "opacity": 1, "strokeWidth": 2,
                  "stroke": {"expr": "datum.shipped ? ink : null"}},
         "encoding": {"x": x, "y": y, "shape": shape, "tooltip": tooltip,
                      "size": {"condition": {"test": "datum.shipped", "value": 190}, "value": 90}}},
        *(_label_layer(points + ends, x, y, look) for look in
          ({"stroke": {"expr": "paper"}, "strokeWidth": 4}, {"fill": {"expr": "ink"}})),
    ]  # fmt: skip


def _label_layer(labels: list[dict], x: dict, y: dict, look: dict) -> dict:
    return {
        "data": {"values": labels},
        "mark": {"type": "text", "align": {"expr": "datum.align"}, "dx": {"expr": "datum.dx"},
                 "dy": {"expr": "datum.dy"}, "fontSize": 12, **look,
                 "fontWeight": {"expr": "datum.shipped ? 'bold' : 'normal'"}},
        "encoding": {"x": x, "y": y, "text": {"field": "label"}},
    }  # fmt: skip
