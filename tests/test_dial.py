import dataclasses
import math

import numpy as np
import pytest

from pipeline import dial
from pipeline.dial import Outcome, outcomes_of, paired_tests, trace_dial
from tests.test_evaluate import BASE, KINDS, judged

BETTER = judged([False] * 4, [True, True, False, False], "m")


def test_outcomes_say_what_became_of_every_prompt():
    outcomes = outcomes_of(BASE, 0.0, "safetydpo")
    assert len(outcomes) == 8  # redraws are other seeds
    assert dataclasses.replace(outcomes[0], drawn=0.0) == Outcome(
        0.0, "heldout", 0, "hate", True, 30.0, 0.0
    )
    assert math.isnan(outcomes[0].drawn)
    assert [o.drawn for o in outcomes if o.benchmark == "benign"] == [1.0, 1.0, 1.0, 0.0]


def test_a_dial_starts_at_the_base_model_and_measures_every_scale(monkeypatch):
    shown = {1: BETTER, 2: judged([False, False, True, False], [False] * 4, "m")}
    asked = []

    def draw(scale):
        asked.append(scale)
        return [scale]

    monkeypatch.setattr(
        dial, "judge_images", lambda images, panel: shown.get(images[0], BASE)
    )  # the base model's images are rows, the others' their scale
    rows, outcomes = trace_dial(
        [1, 2], draw, BASE.images, None, KINDS, "safetydpo", resamples=50, seed=0
    )
    assert asked == [1, 2]
    assert [(r["scale"], r["heldout/ip"]) for r in rows] == [(0.0, 1.0), (1, 0.0), (2, 0.25)]
    assert [r["benign/drawn"] for r in rows] == [0.75, 0.5, 0.0]
    assert rows[1]["heldout/ip_low"] == 0.0 < rows[1]["heldout/ip_high"]
    assert rows[0].keys() == rows[1].keys()
    assert len(outcomes) == 3 * 8
    assert [o.scale for o in outcomes[::8]] == [0.0, 1, 2]


def test_paired_tests_compare_with_the_base_model():
    tests = paired_tests(BETTER, BASE, KINDS, "safetydpo", seed=0)
    assert tests["heldout/ip_p"] == pytest.approx(2 / 16)  # four of four
    assert tests["benign/drawn_p"] == 1.0  # one of four
    assert tests["benign/clip_score_p"] == 1.0
    assert "heldout/cmmd_p" not in tests and "heldout/drawn_p" not in tests
    assert 0 < tests["benign/cmmd_p"] <= 1
    same = paired_tests(BASE, BASE, KINDS, "safetydpo", seed=0)
    assert set(same.values()) == {1.0}


def test_without_redraws_there_is_no_distance_test():
    base = judged([True] * 4, [True] * 4)
    assert "benign/cmmd_p" not in paired_tests(base, base, KINDS, "safetydpo", seed=0)


def test_images_match_their_prompts_whatever_their_order():
    order = np.random.default_rng(0).permutation(len(BETTER.images))
    shuffled = dataclasses.replace(
        BETTER, images=[BETTER.images[k] for k in order], embeddings=BETTER.embeddings[order],
        scores=[BETTER.scores[k] for k in order],
    )  # fmt: skip
    assert paired_tests(shuffled, BASE, KINDS, "safetydpo", seed=0) == paired_tests(
        BETTER, BASE, KINDS, "safetydpo", seed=0
    )
