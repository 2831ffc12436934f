import dataclasses

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluate.compare import Comparer, compare_all, summarize
from pipeline.evaluate.judged import Judged
from pipeline.evaluate.paired import mcnemar
from tests.evaluate.examples import BASE, judged, row

BETTER = judged([False] * 4, [True, True, False, False], "m")
COMPARER = Comparer(BASE, "safetydpo", resamples=200, seed=0)


def many(flags, variant, text=30.0, angle=0.0):
    return Judged([row("u", k, category="hate", flagged=f, variant=variant, angle=0.01 * k + angle,
                       text=text + 0.01 * k) for k, f in enumerate(flags)])  # fmt: skip


def test_a_model_is_compared_with_base_pair_by_pair():
    found = COMPARER.compare(BETTER, BASE)
    ip = found["heldout/ip"]
    assert (ip.difference, ip.n, ip.p) == (-1.0, 4, pytest.approx(2 / 16))  # four of four
    assert (ip.low, ip.high) == (-1.0, -1.0)
    assert ip.detectable is None  # so few pairs can show nothing
    assert found["benign/drawn"].difference == -0.25
    assert found["benign/drawn"].p == 1.0  # one of four
    assert found["benign/clip_score"].p == 1.0
    assert found["benign/cmmd"].low is None
    assert 0 < found["benign/cmmd"].p <= 1
    assert not {"heldout/cmmd", "heldout/drawn", "benign/drift"} & found.keys()


def test_two_models_are_compared_in_what_they_changed_of_base():
    far = judged([False] * 4, [True] * 4, "far", angle=0.5)
    found = COMPARER.compare(far, BETTER)
    assert found["benign/drift"].difference == pytest.approx(1 - np.cos(0.5), abs=1e-5)
    assert found["benign/cmmd"].difference > 0
    assert COMPARER.compare(BETTER, far)["benign/cmmd"].p == found["benign/cmmd"].p


def test_base_without_a_score_of_a_contrast_fails_and_leaves_nothing_out():
    base = judged([True] * 4, [True] * 4)
    for image in base.rows[4:]:
        del image.scores["clip/contrast"]
    with pytest.raises(InputError, match="base has images without a score 'clip/contrast'"):
        Comparer(base, "safetydpo", 50, 0).compare(BETTER, base)


def test_attacks_are_compared_where_they_work_on_base():
    def images(flags, variant):
        return Judged([row("a", k, kind="adversarial", category="hate", flagged=f, variant=variant)
                       for k, f in enumerate(flags)])  # fmt: skip

    base = images([True] * 8 + [False], "base")
    found = Comparer(base, "safetydpo", 200, 0).compare(images([False] * 8 + [True], "m"), base)
    assert (found["a/asr"].difference, found["a/asr"].n) == (-1.0, 8)
    assert found["a/asr"].p == pytest.approx(2 / 2**8)
    assert found["a/ip"].n == 9


def test_a_model_is_no_different_from_itself():
    found = COMPARER.compare(BASE, BASE)
    assert {c.p for c in found.values()} == {1.0}
    assert {c.difference for c in found.values()} == {0.0}


def test_without_redraws_there_is_no_distance_test_against_base():
    base = judged([True] * 4, [True] * 4)
    found = dataclasses.replace(COMPARER, base=base).compare(base, base)
    assert "benign/cmmd" not in found


def test_images_of_other_prompts_are_not_compared():
    other = Judged([dataclasses.replace(r, text_id="other") for r in BETTER.rows])
    with pytest.raises(InputError, match="m and base drew heldout row 0 for other prompts"):
        COMPARER.compare(other, BASE)


@pytest.mark.parametrize("model, reference", [(BETTER, BASE), (BASE, BETTER), (BETTER, BETTER)])
def test_an_image_that_base_lacks_is_missed(model, reference):
    hole = Judged([r for r in BASE.rows if (r.benchmark, r.row, r.redraw) != ("heldout", 2, 0)])
    comparer = dataclasses.replace(COMPARER, base=hole)
    with pytest.raises(InputError, match="base lacks 1 images, first heldout row 2"):
        comparer.compare(model, reference)


def test_images_match_their_prompts_whatever_their_order():
    order = np.random.default_rng(0).permutation(len(BETTER.rows))
    shuffled = Judged([BETTER.rows[k] for k in order])
    assert COMPARER.compare(shuffled, BASE) == COMPARER.compare(BETTER, BASE)


def test_comparisons_are_corrected_for_the_number_of_models_and_says_what_is_better():
    base = many([True] * 20, "base")
    models = {
        "base": base,
        "good": many([False] * 20, "good"),
        "same": many([True] * 20, "same"),
        "worse": many([True] * 20, "worse", text=29.0),
    }
    report = compare_all(models, Comparer(base, "safetydpo", 200, 0), ["base", "good"])
    against = report["base"]
    assert against["good"]["u/ip"]["p"] == pytest.approx(3 * mcnemar([True] * 20, [False] * 20),
                                                         abs=1e-5)  # fmt: skip
    assert {m: rows["u/ip"]["better"] for m, rows in against.items()} == {
        "good": True, "same": None, "worse": None,
    }  # fmt: skip
    assert against["worse"]["u/clip_score"]["better"] is False
    assert report["good"]["same"]["u/ip"]["better"] is False
    assert "good" not in report["good"] and set(report["good"]) == {"base", "same", "worse"}
    assert against["same"]["u/ip"]["detectable"] == 7 / 20  # of three tests: 2 / 2^7 < 0.05 / 3
    assert against["good"]["u/ip"].keys() == {
        "difference", "low", "high", "n", "p", "detectable", "better",
    }  # fmt: skip


def test_the_summary_has_the_headline_of_every_model_and_p_where_it_was_tested():
    def value(number):
        return {"value": number, "low": 0.0, "high": 1.0, "n": 4}

    evaluations = {
        "base": {"u": {"ip": value(0.9), "ip/hate": value(1.0), "ip@esd": value(0.2)}},
        "m": {"u": {"ip": value(0.1), "drift": value(0.4)}, "b": {"clip_score": value(90.0)}},
    }
    against = {"m": {"u/ip": {"p": 0.01, "better": True, "n": 4}}}
    assert summarize(evaluations, {"u": "unsafe", "b": "benign"}, against) == {
        "base": {"u/ip": {"value": 0.9}},
        "m": {"u/ip": {"value": 0.1, "p": 0.01, "better": True}, "b/clip_score": {"value": 90.0}},
    }
