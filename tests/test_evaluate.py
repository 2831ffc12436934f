import dataclasses

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluate import Judged, evaluate_variant, group_rows
from pipeline.judges.nudenet import CLASSES
from pipeline.records import BenchmarkImage
from tests.conftest import png

KINDS = {"heldout": "unsafe", "benign": "benign"}


def image(benchmark, row, category="", contrast="", redraw=0, variant="base"):
    return BenchmarkImage(
        f"{variant}-{benchmark}-{row}-{redraw}", benchmark, row, redraw, f"prompt {row}", category,
        "concept", contrast, 0, variant, png("red", 8),
    )  # fmt: skip


def scores(flagged=False, text=30.0, contrast=None):
    q16 = {"inappropriate": 21.0 if flagged else 19.0, "not_inappropriate": 20.0}
    clip = {"text": text} | ({} if contrast is None else {"contrast": contrast})
    return {"q16": q16, "nudenet": dict.fromkeys(CLASSES, 0.0), "clip": clip}


def judged(flags, drawn, variant="base", redraws=0, angle=0.0):
    """Four unsafe images (two categories) and four benign ones with a contrast."""
    images = [image("heldout", k, "hate" if k < 2 else "violence", variant=variant)
              for k in range(4)]  # fmt: skip
    values = [scores(f) for f in flags]
    for redraw in range(redraws + 1):
        for k in range(4):
            images.append(image("benign", k, contrast="c", redraw=redraw, variant=variant))
            values.append(scores(False, 30.0, 29.0 if drawn[k] else 31.0))
    angles = np.arange(len(images)) * 0.1 + angle
    return Judged(images, np.stack([np.cos(angles), np.sin(angles)], 1), values)


BASE = judged([True] * 4, [True, True, True, False], redraws=2)


def evaluate(variant, base=BASE):
    return evaluate_variant(variant, base, KINDS, "safetydpo", 50, 0)


def test_rates_are_counted_by_benchmark_and_category():
    result = evaluate(judged([False, True, False, False], [True] * 4, "m"))
    values = {k: (v.value, v.n) for k, v in result["heldout"].items()}
    assert values["ip"] == (0.25, 4)
    assert values["ip/hate"] == (0.5, 2)
    assert values["ip/violence"] == (0.0, 2)
    assert result["benign"]["clip_score"].value == 30.0
    assert "cmmd" not in result["heldout"]


def test_over_blocking_counts_what_base_drew_and_the_variant_did_not():
    result = evaluate(judged([True] * 4, [True, False, False, True], "m"))["benign"]
    assert (result["over_block"].value, result["over_block"].n) == (pytest.approx(2 / 3), 3)
    assert (result["drawn"].value, result["drawn"].n) == (0.5, 4)


def test_base_is_compared_with_its_own_redraws():
    result = evaluate(BASE)["benign"]
    assert result["over_block"].value == 0.0
    assert 0 < result["cmmd"].low < result["cmmd"].value < result["cmmd"].high


def test_a_variant_equal_to_base_has_no_distance():
    result = evaluate(judged([True] * 4, [True] * 4, "m"))
    assert result["benign"]["cmmd"].value == pytest.approx(0, abs=1e-9)
    moved = evaluate(judged([True] * 4, [True] * 4, "m", angle=0.5))
    assert moved["benign"]["cmmd"].value > 1


def test_a_missing_image_fails_and_never_counts_as_safe():
    full = judged([True] * 4, [True] * 4, "m")
    cut = Judged(full.images[1:], full.embeddings[1:], full.scores[1:])
    with pytest.raises(InputError, match="m lacks 1 images, first heldout row 0"):
        evaluate(cut)


def test_a_missing_score_fails():
    full = judged([True] * 4, [True] * 4, "m")
    del full.scores[2]["q16"]
    with pytest.raises(InputError, match="needs scores of judge 'q16'"):
        evaluate(full)


def test_an_empty_benchmark_fails():
    empty = Judged(BASE.images[4:], BASE.embeddings[4:], BASE.scores[4:])
    with pytest.raises(InputError, match="benchmark 'heldout' has no images"):
        evaluate(empty, empty)


def test_group_rows_takes_categories_in_turn():
    rows = group_rows(BASE.images, "heldout", 3)
    assert [r.row for r in rows] == [0, 2, 1]
    assert len(group_rows(BASE.images, "benign", 99)) == 4


def test_results_have_the_contracts_form():
    estimate = evaluate(BASE)["heldout"]["ip"]
    assert set(estimate.as_dict()) == {"value", "low", "high", "n"}
    assert dataclasses.is_dataclass(estimate)
