import json

import numpy as np
import pytest

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.personal.bans import ban_by_rules
from pipeline.personal.encoders import (
    Standard,
    ban_columns,
    load_encoder,
    structured_features,
)
from pipeline.personal.profiles import UserProfile
from pipeline.personal.separability import ban_probe, cosine_spread, largest_dimension_share
from pipeline.personal.users import sample_profile
from pipeline.sources import hash_weights

CATEGORIES = ["hate", "self-harm", "violence", "sexual", "shocking"]
LM = str(TESTBED / "lm")


def load(name, model=LM, revision=None):
    return load_encoder(name, categories=CATEGORIES, model=model, revision=revision, batch=32)


@pytest.fixture(scope="module")
def users():
    profiles = [sample_profile(k) for k in range(160)]
    return profiles, [ban_by_rules(str(k), p, CATEGORIES, 0) for k, p in enumerate(profiles)]


def test_features_by_hand():
    raw, names = structured_features(
        [UserProfile(age=40, religion="none", mental="war"), UserProfile()],
        [{"violence"}, frozenset()], CATEGORIES,
    )  # fmt: skip
    on = {n: float(v) for n, v in zip(names, raw[0], strict=True) if v}
    assert on == {
        "age": pytest.approx(0.4), "age known": 1, "age_group/middle-aged": 1, "religion/none": 1,
        "mental/war": 1, "banned/violence": 1,
    }  # fmt: skip
    assert not raw[1].any()
    assert raw.dtype == np.float32
    assert len(set(names)) == len(names) == raw.shape[1]


def test_newborns_differ_from_users_of_unknown_age():
    raw, names = structured_features([UserProfile(age=0)], [set()], CATEGORIES)
    assert raw[0, names.index("age known")] == 1


def test_bans_read_out_exactly(users):
    raw, names = structured_features(*users, CATEGORIES)
    columns = ban_columns(CATEGORIES)
    assert [names[k] for k in columns.values()] == [f"banned/{c}" for c in CATEGORIES]
    read = [{c for c, k in columns.items() if row[k]} for row in raw]
    assert read == users[1]


def test_a_ban_of_no_category_is_refused():
    with pytest.raises(InputError, match="'theft' is no category; the categories are hate"):
        load("structured").features([UserProfile()], [{"theft"}])


def test_standardised_by_hand_and_constants_stay_finite():
    raw = np.array([[0, 0.1], [2, 0.1], [4, 0.1]], np.float32)
    standard = Standard.fit(raw)
    assert standard.std.tolist() == pytest.approx([np.sqrt(8 / 3), 1])
    found = standard.apply(raw)
    np.testing.assert_allclose(found, [[-np.sqrt(1.5), 0], [0, 0], [np.sqrt(1.5), 0]], atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("raw", [np.zeros((0, 3)), np.array([[np.nan]])])
def test_nothing_is_standardised_by_nothing_or_by_nan(raw):
    with pytest.raises(ValueError, match="finite"):
        Standard.fit(raw)


def test_encoders_say_what_they_are():
    assert load("structured").describe() == {"name": "structured", "categories": CATEGORIES}
    identity = load("llm").describe()
    assert identity == {"name": "llm", "model": LM, "revision": None,
                        "weights": hash_weights(TESTBED / "lm")}  # fmt: skip
    assert json.loads(json.dumps(identity)) == identity


def test_unknown_encoders_and_unfixed_models_are_refused():
    with pytest.raises(InputError, match="unknown profile encoder 'bert'; known: structured, llm"):
        load("bert")
    with pytest.raises(InputError, match="'llm' needs a model"):
        load("llm", model=None)
    with pytest.raises(InputError, match="'some/model' is no folder here; a hub id needs"):
        load("llm", model="some/model")


@pytest.mark.parametrize("name", ["structured", "llm"])
def test_a_user_is_encoded_the_same_among_any_others(name, users):
    encoder = load(name)
    few = encoder.features(users[0][:3], users[1][:3])
    many = encoder.features(users[0][:9], users[1][:9])
    np.testing.assert_allclose(few, many[:3], atol=1e-5)


@pytest.mark.parametrize("name", ["structured", "llm"])
def test_standardised_vectors_tell_users_apart_better_than_raw_ones(name, users):
    """The published fault: raw vectors of all users point one way, and one dimension rules."""
    raw = load(name).features(*users)
    standardised = Standard.fit(raw[:120]).apply(raw)
    assert cosine_spread(raw)["mean"] > 0.4
    assert abs(cosine_spread(standardised)["mean"]) < 0.05
    assert largest_dimension_share(standardised) < largest_dimension_share(raw)


@pytest.mark.parametrize(("name", "least"), [("structured", 1), ("llm", 0.8)])
def test_bans_of_new_users_are_found_in_standardised_vectors(name, least, users):
    raw, bans = load(name).features(*users), users[1]
    vectors = Standard.fit(raw[:120]).apply(raw)
    probe = ban_probe(vectors[:120], bans[:120], vectors[120:], bans[120:], CATEGORIES)
    assert probe["mean_accuracy"] >= least > probe["mean_majority"]
