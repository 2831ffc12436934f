import csv

import vl_convert
from dvc_render.vega import VegaRenderer

from pipeline.pairs.histograms import Bins, count_scores
from pipeline.storage import write_csv
from tests.imports import ROOT

BINS = {"margin": Bins(-2, 2, 4)}


def test_every_value_is_in_one_bin_and_empty_bins_are_there():
    rows = count_scores({("margin", "both"): [-9, -2, -0.5, 0, 0.99, 2, 3]}, BINS)
    assert rows == [
        {"score": "margin", "side": "both", "bin": edge, "count": count}
        for edge, count in {-2: 2, -1: 1, 0: 2, 1: 2}.items()
    ]


def test_no_values_make_the_same_bins():
    empty = count_scores({("margin", "both"): []}, BINS)
    assert [r["bin"] for r in empty] == [-2, -1, 0, 1]
    assert {r["count"] for r in empty} == {0}


def test_dvc_draws_them_with_our_template(tmp_path):
    values = {("margin", side): [0.5, 1.5] for side in ("unsafe", "safe")}
    write_csv(tmp_path / "h.csv", count_scores(values, BINS))
    with (tmp_path / "h.csv").open() as file:
        points = [row | {"rev": "workspace"} for row in csv.DictReader(file)]
    plot = VegaRenderer(
        points, "h.csv", template="histogram", template_dir=str(ROOT / ".dvc/plots"), x="bin",
        y="count",
    )  # fmt: skip
    svg = vl_convert.vegalite_to_svg(plot.get_filled_template())
    assert "margin" in svg and "unsafe" in svg
