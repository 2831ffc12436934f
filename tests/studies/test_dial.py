import dataclasses
import math

import pytest

from pipeline.evaluate.compare import Comparer
from pipeline.studies import dial
from pipeline.studies.dial import Outcome, outcomes_of, trace_dial
from tests.evaluate.examples import BASE, judged

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

    monkeypatch.setattr(dial, "judge_images", lambda images, panel: shown[images[0]].rows)
    rows, outcomes = trace_dial([1, 2], draw, None, Comparer(BASE, "safetydpo", 50, 0))
    assert asked == [1, 2]
    assert [(r["scale"], r["heldout/ip"]) for r in rows] == [(0.0, 1.0), (1, 0.0), (2, 0.25)]
    assert [r["benign/drawn"] for r in rows] == [0.75, 0.5, 0.0]
    assert rows[0]["heldout/ip_p"] == 1.0
    assert rows[1]["heldout/ip_p"] == pytest.approx(2 / 16)
    assert rows[1]["heldout/ip_low"] == 0.0 < rows[1]["heldout/ip_high"]
    assert rows[0].keys() == rows[1].keys()
    assert len(outcomes) == 3 * 8
    assert [o.scale for o in outcomes[::8]] == [0.0, 1, 2]
