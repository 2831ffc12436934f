import dataclasses
import json
import shutil

import numpy as np
import pytest

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.personal.encoders import Standard, structured_features
from pipeline.personal.profiles import UserProfile
from pipeline.personal.space import EncoderSettings, UserSpace
from tests.personal.examples import CATEGORIES, FLOOR, make_space, make_user

SPACE = make_space()
ADULT = UserProfile(age=40, religion="none", physical="healthy", mental="healthy")
EVERYTHING = set(CATEGORIES)


@pytest.mark.parametrize(
    ("profile", "banned", "whole"),
    [
        (ADULT, set(), FLOOR),
        (ADULT, {"hate"}, {"hate", "sexual"}),
        (ADULT, EVERYTHING, EVERYTHING),
        (ADULT.model_copy(update={"age": 17}), set(), EVERYTHING),
        (UserProfile(age=0), {"hate"}, EVERYTHING),
        (UserProfile(), set(), EVERYTHING),  # an age that is not told
        (ADULT.model_copy(update={"age": 18}), set(), FLOOR),
    ],
)
def test_nothing_that_is_told_lifts_the_floor_or_what_minors_ban(profile, banned, whole):
    assert SPACE.boundary(profile, banned).banned == whole


@pytest.mark.parametrize(
    ("told", "whole"),
    [
        ({}, FLOOR), ({"mental": "anxiety"}, {"violence", "sexual"}),
        # what is only to be considered counts, whoever asks: nobody is there to flip a coin
        ({"religion": "islam"}, {"hate", "sexual"}), ({"age": 12}, EVERYTHING),
        ({"age": None}, EVERYTHING),
    ],
)  # fmt: skip
def test_bans_that_are_not_told_follow_from_the_rules(told, whole):
    assert SPACE.boundary(ADULT.model_copy(update=told)).banned == whole


def test_a_boundarys_vector_is_the_standardised_profile_with_the_whole_bans():
    boundary = SPACE.boundary(ADULT, {"hate"})
    raw, _ = structured_features([ADULT], [{"hate", "sexual"}], CATEGORIES)
    assert np.array_equal(boundary.vector, SPACE.standard.apply(raw)[0])
    assert boundary.vector.dtype == np.float32
    assert boundary.vector.shape == (SPACE.width,)
    other = SPACE.boundary(UserProfile(age=40, religion="islam"), {"hate"})
    assert not np.array_equal(boundary.vector, other.vector)


def test_bans_alone_are_those_of_an_adult_of_whom_nothing_else_is_known():
    assert SPACE.only({"violence"}).banned == {"violence", "sexual"}
    assert SPACE.only(set()).banned == FLOOR
    raw, _ = structured_features([UserProfile()], [{"violence", "sexual"}], CATEGORIES)
    assert np.array_equal(SPACE.only({"violence"}).vector, SPACE.standard.apply(raw)[0])


def test_of_whom_nothing_is_known_everything_is_banned():
    assert SPACE.strictest.banned == EVERYTHING


def test_whatever_is_told_of_a_person_has_its_boundary():
    profile = UserProfile(age=30, religion="islam")
    for told, expected in (
        ({}, SPACE.strictest), ({"level": "L1"}, SPACE.level("L1")),
        ({"profile": profile}, SPACE.boundary(profile)), ({"bans": set()}, SPACE.only(set())),
        ({"profile": profile, "bans": set()}, SPACE.boundary(profile, set())),
        ({"profile": UserProfile()}, SPACE.strictest),
        ({"profile": UserProfile(age=10), "bans": set()}, SPACE.boundary(UserProfile(age=10))),
    ):  # fmt: skip
        found = SPACE.resolve(**told)
        assert found.banned == expected.banned, told
        assert told.get("profile") == UserProfile() or np.array_equal(found.vector, expected.vector)
    for told in ({"profile": profile}, {"bans": set()}, {"profile": profile, "bans": {"hate"}}):
        with pytest.raises(InputError, match="give a level, or a profile and bans, not both"):
            SPACE.resolve(level="L1", **told)


@pytest.mark.parametrize("ask", [SPACE.only, lambda bans: SPACE.boundary(ADULT, bans)])
def test_a_ban_of_no_category_is_refused(ask):
    with pytest.raises(InputError, match="'gore' is no category; the categories are hate, viol"):
        ask({"hate", "gore"})


def test_levels_are_looked_up_by_name():
    assert SPACE.level("L1").banned == FLOOR
    assert SPACE.level("L2") is SPACE.levels["L2"]
    with pytest.raises(InputError, match="unknown level 'L9'; known: L1, L2"):
        SPACE.level("L9")


def test_bans_as_numbers_are_in_the_order_of_the_gates():
    boundaries = [SPACE.only({"violence"}), SPACE.strictest]
    found = SPACE.one_hot(boundaries)
    assert found.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert found.dtype == np.float32
    turned = dataclasses.replace(SPACE, categories=("sexual", "hate", "violence"))
    assert turned.one_hot(boundaries).tolist() == [[1, 0, 1], [1, 1, 1]]


def test_an_encoder_of_another_width_is_refused():
    narrow = Standard(SPACE.standard.mean[:-1], SPACE.standard.std[:-1])
    space = dataclasses.replace(SPACE, standard=narrow)
    width = SPACE.width
    fault = f"'structured' gives {width} numbers, the adapter was trained on {width - 1}"
    for ask in (lambda: space.boundary(ADULT), lambda: space.only(set()), lambda: space.strictest):
        with pytest.raises(InputError, match=fault):
            ask()


def test_users_with_vectors_of_another_width_are_refused():
    fitting = make_user("a", vector=np.zeros(SPACE.width))
    SPACE.check_users([fitting])
    with pytest.raises(InputError, match=f"user b has a vector of {4 * (SPACE.width + 1)} bytes"):
        SPACE.check_users([fitting, make_user("b", vector=np.zeros(SPACE.width + 1))])


def test_a_language_model_with_other_weights_is_refused(tmp_path):
    """Another model at the same place, of the same width, would give vectors that mean nothing."""
    shutil.copytree(TESTBED / "lm", tmp_path / "lm")
    settings = EncoderSettings("llm", str(tmp_path / "lm"))
    pinned = settings.on_record(settings.load(CATEGORIES))
    assert pinned.load(CATEGORIES) and "weights" in dataclasses.replace(
        SPACE, encoder=pinned).header()["encoder"]  # fmt: skip
    assert "weights" not in SPACE.header()["encoder"]
    (tmp_path / "lm/another.txt").write_text("a change")
    with pytest.raises(InputError, match="vectors were made with .*; run `dvc repro train_psa`"):
        pinned.load(CATEGORIES)


def test_a_language_models_vectors_are_asked_for_when_they_are_needed():
    settings = EncoderSettings("llm", str(TESTBED / "lm"))
    llm = UserSpace(tuple(CATEGORIES), FLOOR, settings, SPACE.standard, SPACE.levels)
    assert llm.level("L1").banned == FLOOR  # no model is loaded for it
    with pytest.raises(InputError, match="'llm' gives .* numbers, the adapter was trained on"):
        llm.only(set())
    width = llm._loaded.features([ADULT], [FLOOR]).shape[1]
    fitting = dataclasses.replace(llm, standard=Standard(np.zeros(width, np.float32),
                                                         np.ones(width, np.float32)))  # fmt: skip
    assert not np.array_equal(fitting.only({"hate"}).vector, fitting.only(set()).vector)
    unknown = dataclasses.replace(SPACE, encoder=EncoderSettings("bert"))
    with pytest.raises(InputError, match="unknown profile encoder 'bert'"):
        unknown.only(set())


def test_a_space_is_made_of_its_header_and_arrays():
    header = json.loads(json.dumps(SPACE.header()))
    again = UserSpace.of(header, SPACE.arrays())
    assert again.header() == header
    assert (again.categories, again.floor) == (tuple(CATEGORIES), FLOOR)
    assert np.array_equal(again.only({"hate"}).vector, SPACE.only({"hate"}).vector)
    assert again.level("L2").banned == EVERYTHING
    for part in ("categories", "floor", "encoder", "levels"):
        with pytest.raises(KeyError):
            UserSpace.of({k: v for k, v in header.items() if k != part}, SPACE.arrays())
    for name in SPACE.arrays():
        with pytest.raises(KeyError):
            UserSpace.of(header, {k: v for k, v in SPACE.arrays().items() if k != name})
