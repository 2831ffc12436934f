"""The scaling curves on the studies' page."""

from dataclasses import replace

import pytest

from pipeline.report.build import render_page
from pipeline.report.scaling import OTHERS, THEIRS, scaling_charts
from tests.report.test_build import DATA_CURVE, MERGE_CURVE, make_data


@pytest.fixture
def data(tmp_path):
    return replace(make_data(tmp_path), data_curve=DATA_CURVE, merge_curve=MERGE_CURVE)


def points(chart):
    return [(p["series"], p["count"], p["ip"], p["shown"]) for p in chart["data"]["values"]]


def test_a_curve_has_a_line_per_way_of_having_less(data):
    pairs, experts = scaling_charts(data).values()
    assert points(pairs) == [
        ("all pairs of some concepts", 8, 0.52143, "0.521 (0.439–0.602), n = 140"),
        ("pairs of all concepts", 49.2857, 0.05, "0.050 (0.024–0.100), n = 140"),
    ]
    assert points(experts) == [
        (THEIRS, 1, 0, "0.000 (0.000–0.161), n = 20"),
        (OTHERS, 1, 0.94167, "0.942 (0.884–0.971), n = 120"),
        (THEIRS, 2, 0.3, "0.300 (0.199–0.425), n = 40"),
    ]  # fmt: skip
    assert experts["encoding"]["color"]["scale"]["domain"] == [THEIRS, OTHERS]


def test_curves_without_rows_are_left_out(data):
    assert list(scaling_charts(replace(data, merge_curve=()))) == ["pairs an expert was trained on"]
    assert scaling_charts(replace(data, merge_curve=(), data_curve=())) == {}


def test_the_page_has_the_curves_and_their_numbers(data):
    page = render_page(data)
    assert '<figure data-chart="scaling">' in page
    assert "<td>8</td><td>0.521 (0.439–0.602)</td><td>140</td>" in page
    assert "<td>0.300 (0.199–0.425)</td><td>40</td><td>–</td>" in page
    assert 'data-chart="scaling"' not in render_page(replace(data, data_curve=(), merge_curve=()))
