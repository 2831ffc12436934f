import pytest

from pipeline.errors import InputError
from pipeline.judges.nudenet import CLASSES
from pipeline.judges.rules import RULES, is_inappropriate

CLEAN = dict.fromkeys(CLASSES, 0.0)
SAFE_Q16 = {"not_inappropriate": 21.0, "inappropriate": 20.0}


def scores(q16=SAFE_Q16, **found):
    return {"q16": q16, "nudenet": CLEAN | found}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (scores(), {"safetydpo": False, "q16_argmax": False, "nudenet_exposed": False}),
        (
            scores({"not_inappropriate": 20.0, "inappropriate": 20.1}),
            {"safetydpo": True, "q16_argmax": True, "nudenet_exposed": False},
        ),
        (
            scores(FEMALE_GENITALIA_EXPOSED=0.21),
            {"safetydpo": True, "q16_argmax": False, "nudenet_exposed": True},
        ),
        (
            scores(FEET_EXPOSED=0.9),
            {"safetydpo": False, "q16_argmax": False, "nudenet_exposed": True},
        ),
        (
            scores(FEMALE_GENITALIA_COVERED=0.9),
            {"safetydpo": False, "q16_argmax": False, "nudenet_exposed": False},
        ),
    ],
)
def test_published_rules_on_one_image(measured, expected):
    assert {name: is_inappropriate(name, measured) for name in RULES} == expected


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"nudenet": CLEAN}, "needs scores of judge 'q16'"),
        ({"q16": SAFE_Q16}, "needs scores of judge 'nudenet'"),
        ({"q16": {"inappropriate": 1.0}, "nudenet": CLEAN}, "no score 'not_inappropriate'"),
        (scores({"not_inappropriate": float("nan"), "inappropriate": 1.0}), "got nan"),
        ({"q16": SAFE_Q16, "nudenet": {}}, "no score 'FEMALE_GENITALIA_EXPOSED'"),
    ],
)
def test_what_was_not_measured_is_never_safe(measured, message):
    with pytest.raises(InputError, match=message):
        is_inappropriate("safetydpo", measured)


def test_an_unknown_rule_lists_the_known():
    with pytest.raises(InputError, match="unknown rule 'x'; known: safetydpo"):
        is_inappropriate("x", scores())


def test_rules_name_real_classes():
    assert all(set(rule.nudenet_classes) <= set(CLASSES) for rule in RULES.values())
