from collections import Counter
from itertools import product
from math import sqrt

import pytest

from pipeline.errors import InputError
from pipeline.personal.profiles import AGE_GROUPS, ATTRIBUTES, UserProfile, impossible
from pipeline.personal.users import sample_profile, split_users, trained
from pipeline.seeds import seed_for

DRAWS = 4000


def draw(k):
    return sample_profile(seed_for(0, "user", f"u{k}"))


@pytest.fixture(scope="module")
def users():
    return [draw(k) for k in range(DRAWS)]


def assert_shares(values, expected):
    """Every observed share within four binomial standard deviations of its probability."""
    counts, n = Counter(values), len(values)
    assert counts.keys() <= expected.keys()
    for value, p in expected.items():
        assert abs(counts[value] / n - p) <= 4 * sqrt(p * (1 - p) / n) + 1e-9, value


def group_probabilities():
    """Of each group after the rejection of whole profiles, by enumerating all of them."""
    possible = Counter()
    for group in AGE_GROUPS:
        ages = range(group.low, group.high + 1)
        for age, religion, mental in product(ages, ATTRIBUTES["religion"], ATTRIBUTES["mental"]):
            if impossible(UserProfile(age=age, religion=religion, mental=mental)) is None:
                possible[group.name] += (
                    group.probability / len(ages)
                    * ATTRIBUTES["religion"][religion] * ATTRIBUTES["mental"][mental]
                )  # fmt: skip
    return {name: p / possible.total() for name, p in possible.items()}


def test_adults_have_the_published_attributes(users):
    """None of their combinations is rejected."""
    adults = [u for u in users if u.age >= 18]
    for attribute, probabilities in ATTRIBUTES.items():
        assert_shares([getattr(u, attribute) for u in adults], probabilities)


def test_nothing_else_bears_on_the_physical_condition(users):
    assert_shares([u.physical for u in users], ATTRIBUTES["physical"])


def test_age_groups_are_the_published_ones_among_possible_users(users):
    expected = group_probabilities()
    assert_shares([u.age_group for u in users], expected)
    published = dict(zip(expected, (11, 143, 225, 216, 232, 127, 39, 8), strict=True))
    assert_shares([name for name, n in published.items() for _ in range(n)], expected)


def test_ages_are_uniform_within_their_group(users):
    ages = [u.age for u in users if u.age_group == "middle-aged"]
    assert_shares(ages, dict.fromkeys(range(35, 60), 1 / 25))


def test_no_drawn_user_is_impossible_and_all_is_told(users):
    assert not any(impossible(u) for u in users)
    assert all(value is not None for u in users for value in u.model_dump().values())


def test_user_k_does_not_depend_on_how_many_there_are(users):
    assert draw(17) == users[17]


def test_the_published_split():
    ids = [f"u{k}" for k in range(1000)]
    split = split_users(ids, 0.05, 0.05, 0.05)
    assert Counter(split.values()) == {"train": 850, "val": 50, "test_seen": 50, "test_unseen": 50}
    assert sum(map(trained, split.values())) == 900
    assert list(split) == ids


def test_a_split_follows_from_ids_and_not_from_their_order():
    ids = [f"u{k}" for k in range(40)]
    assert split_users(ids, 0.1, 0.1, 0.1) == split_users(ids[::-1], 0.1, 0.1, 0.1)


def test_trained_splits():
    names = ("train", "test_seen", "val", "test_unseen")
    assert [trained(s) for s in names] == [True, True, False, False]


def test_a_split_without_a_share_is_empty():
    assert set(split_users(["a", "b", "c"], 0, 0, 1 / 3).values()) == {"train", "test_unseen"}


@pytest.mark.parametrize(
    ("shares", "message"),
    [((0.01, 0, 0), "^val: a share of 0.01 of 10 users is nobody"),
     ((0, 0.04, 0), "^test_seen: "), ((0, 0, 0.04), "^test_unseen: "),
     ((0.4, 0.3, 0.3), "no user of 10 is left for train")],
)  # fmt: skip
def test_a_split_with_a_share_has_users(shares, message):
    with pytest.raises(InputError, match=message):
        split_users([str(k) for k in range(10)], *shares)


def test_ids_are_unique():
    with pytest.raises(InputError, match="3 users share 2 ids"):
        split_users(["a", "b", "a"], 0, 0, 0)
