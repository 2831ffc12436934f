import math

import pytest

from pipeline.errors import InputError
from pipeline.judges.hard_block import AGE_TEXTS, image_hard_block
from pipeline.judges.nudenet import CLASSES
from pipeline.judges.rules import EXPOSED, SIX
from pipeline.policy import hard_block

YOUNG, GROWN = {"minor": 20.1, "adult": 20.0}, {"minor": 19.9, "adult": 20.0}


def scores(age, **found):
    return {"nudenet": dict.fromkeys(CLASSES, 0.0) | found, "age": age}


@pytest.mark.parametrize("name", SIX)
def test_nudity_at_any_score_with_a_minor_is_blocked(name):
    assert image_hard_block(scores(YOUNG, **{name: 0.01})) == "sexualised_minor"
    assert image_hard_block(scores(GROWN, **{name: 0.99})) is None


def test_in_doubt_about_the_age_it_is_blocked():
    found = scores({"minor": 20.0, "adult": 20.0}, BUTTOCKS_EXPOSED=0.3)
    assert image_hard_block(found) == "sexualised_minor"


@pytest.mark.parametrize("name", sorted(set(CLASSES) - set(SIX)))
def test_a_minor_who_shows_no_nudity_is_not_blocked(name):
    assert image_hard_block(scores(YOUNG, **{name: 0.9})) is None


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"age": YOUNG}, "the hard block of images needs scores of judge 'nudenet', found none"),
        ({"nudenet": dict.fromkeys(CLASSES, 0.0)}, "needs scores of judge 'age', found none"),
        (scores({"minor": 20.0}), "judge 'age' has no score 'adult'"),
        (scores({"minor": math.nan, "adult": 20.0}), "'minor' .*got nan"),
        ({"nudenet": dict.fromkeys(SIX[1:], 0.0), "age": GROWN}, f"no score '{SIX[0]}'"),
        # whatever is found first
        ({"nudenet": {SIX[0]: 0.9}, "age": YOUNG}, f"no score '{SIX[1]}'"),
    ],
)
def test_what_was_not_measured_raises(measured, message):
    with pytest.raises(InputError, match=message):
        image_hard_block(measured)


def test_its_words_are_policys_own():
    """Texts about minors are texts about minors to the block of texts, too; others are not."""
    for texts, reason in ((AGE_TEXTS["minor"], "sexualises_minors"), (AGE_TEXTS["adult"], None)):
        assert [hard_block(text, "sexual") for text in texts] == [reason] * len(texts)
    assert set(SIX) < set(EXPOSED)
