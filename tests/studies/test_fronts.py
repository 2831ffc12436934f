import json

import pytest

from pipeline.errors import InputError
from pipeline.studies.dial import Outcome
from pipeline.studies.fronts import Dial, compare_fronts, operating_point, save_fronts

PROMPTS = 20


def row(scale, flagged, clip_p=1.0, drawn_p=1.0, drawn=None, ip_p=1.0, clip=None):
    clip = (30.0 if clip_p == 1 else 29.0) if clip is None else clip
    drawn = (1.0 if drawn_p == 1 else 0.8) if drawn is None else drawn
    return {"scale": scale, "heldout/ip": flagged / PROMPTS, "benign/clip_score": clip,
            "benign/ip": 0.0 if ip_p == 1 else 0.2,
            "benign/clip_score_p": clip_p, "benign/cmmd_p": 1.0, "benign/ip_p": ip_p,
            "lookalike/drawn": drawn, "lookalike/drawn_p": drawn_p,
            "lookalike/clip_score": clip, "lookalike/clip_score_p": float(not scale),
            "lookalike/cmmd_p": float(not scale)}  # fmt: skip


def dial(*rows):
    """Of the prompts the first ``flagged`` are inappropriate; rows of the file in reverse."""
    outcomes = [
        Outcome(r["scale"], "heldout", k, "hate", k < r["heldout/ip"] * PROMPTS, 30.0, 1.0)
        for r in rows for k in reversed(range(PROMPTS))
    ]  # fmt: skip
    return Dial(rows, outcomes)


BASE = row(0.0, 19)
WHOLE = ["benign"]


def test_the_operating_point_is_the_safest_scale_that_costs_nothing():
    rows = [BASE, row(1, 5), row(1.5, 2), row(2, 0, drawn_p=0.04), row(2.5, 0, clip_p=0.01)]
    both = ["benign", "lookalike"]
    assert operating_point(rows, "heldout", both, WHOLE)["scale"] == 1.5
    # only benign benchmarks that are asked about count; CLIPScore and CMMD where all has to be kept
    assert operating_point(rows, "heldout", WHOLE, WHOLE)["scale"] == 2
    assert operating_point([BASE, row(1, 19)], "heldout", both, WHOLE)["scale"] == 0
    assert operating_point(rows, "heldout", both, both)["scale"] == 0
    # a better CLIPScore is no cost
    rows = [BASE, row(1, 5, clip_p=0.01, clip=31.0), row(1.5, 4, clip_p=0.01)]
    assert operating_point(rows, "heldout", both, WHOLE)["scale"] == 1
    # what is flagged among benign images is a cost, and nothing after the first cost counts
    rows = [BASE, row(1, 5), row(1.5, 3, ip_p=0.03), row(2, 0)]
    assert operating_point(rows, "heldout", both, WHOLE)["scale"] == 1


def test_a_dial_without_its_base_or_without_tests_is_refused():
    with pytest.raises(InputError, match="must start with the base model"):
        operating_point([row(1, 3)], "heldout", WHOLE, WHOLE)
    once = {name: value for name, value in BASE.items() if name != "benign/cmmd_p"}
    with pytest.raises(InputError, match="benign is no benign benchmark .* that has redraws"):
        operating_point([once], "heldout", WHOLE, WHOLE)
    with pytest.raises(InputError, match="benign is no benign benchmark"):
        operating_point([BASE], "heldout", ["lookalike"], WHOLE)
    with pytest.raises(InputError, match="no benign benchmark"):
        operating_point([BASE], "heldout", [], WHOLE)
    with pytest.raises(InputError, match="dial.whole: heldout is no benign benchmark"):
        operating_point([BASE], "heldout", WHOLE, ["heldout"])


def test_models_are_compared_at_their_own_points_with_the_best():
    dials = {"a": dial(BASE, row(1, 9)), "b": dial(BASE, row(1, 3), row(2, 1)), "c": dial(BASE)}
    report = compare_fronts(dials, "heldout", ["benign", "lookalike"], WHOLE)
    assert list(report) == ["b", "a", "c"]
    assert [r["scale"] for r in report.values()] == [2, 1, 0]
    assert report["b"]["ip"]["value"] == 0.05 and report["b"]["ip"]["n"] == PROMPTS
    assert report["b"]["p_against_best"] == 1.0
    # 8 and 18 of 20 changed, all one way; two tests
    assert report["a"]["p_against_best"] == pytest.approx(2 / 2**8, abs=1e-5)
    assert report["c"]["p_against_best"] == pytest.approx(2 * 2 / 2**18, abs=1e-5)
    assert [r["at_grid_end"] for r in report.values()] == [True, True, True]
    assert report["a"]["lookalike/drawn_p"] == 1.0
    assert report["a"]["benign/ip_p"] == 1.0


def test_the_comparison_and_its_figure_are_written_the_same_every_time(tmp_path):
    dials = {"a": dial(BASE, row(1, 9)), "b": dial(BASE, row(1, 3))}
    files = []
    for _ in range(2):
        save_fronts(
            tmp_path / "f.json", tmp_path / "f.svg", dials, "heldout", ["benign", "lookalike"],
            WHOLE,
        )  # fmt: skip
        files.append([(tmp_path / name).read_bytes() for name in ("f.json", "f.svg")])
    assert files[0] == files[1]
    assert json.loads(files[0][0]).keys() == {"a", "b"}
    assert b"heldout/ip" in files[0][1]
