import numpy as np
import pytest

from pipeline.evaluate.distances import cmmd_estimate, cmmd_parts
from pipeline.evaluate.metrics import mean, rate
from pipeline.personal.crossed import crossed_distance, crossed_estimate, where_asked

NAN = np.nan
RNG = np.random.default_rng(0)
PROMPTS = RNG.normal(5, 2, size=60)


def width(estimate):
    return estimate.high - estimate.low


def test_one_user_is_the_bootstrap_over_prompts():
    one = crossed_estimate(PROMPTS[None], 4000, 0)
    plain = mean(PROMPTS, 4000, 0)
    assert (one.value, one.n) == (pytest.approx(plain.value), 60)
    assert (one.low, one.high) == pytest.approx((plain.low, plain.high), abs=0.05)
    assert width(one) == pytest.approx(2 * 1.96 * PROMPTS.std() / 60**0.5, rel=0.05)


@pytest.mark.parametrize("users", [2, 50])
def test_users_who_share_all_images_add_nothing(users):
    one = crossed_estimate(PROMPTS[None], 500, 0)
    many = crossed_estimate(np.tile(PROMPTS, (users, 1)), 500, 0)
    assert (many.low, many.high) == pytest.approx((one.low, one.high), abs=1e-9)
    assert (many.value, many.n) == (pytest.approx(one.value), users * 60)


def test_prompts_that_are_all_alike_add_nothing_to_users():
    users = crossed_estimate(np.tile(PROMPTS[:, None], (1, 7)), 4000, 0)
    plain = mean(PROMPTS, 4000, 0)
    assert (users.low, users.high) == pytest.approx((plain.low, plain.high), abs=0.05)


def test_spread_of_users_and_of_prompts_adds_up():
    of_users, of_prompts = RNG.normal(0, 1, (40, 1)), RNG.normal(0, 1, (1, 30))
    found = crossed_estimate(of_users + of_prompts, 4000, 0)
    error = (of_users.var() / 40 + of_prompts.var() / 30) ** 0.5
    assert width(found) == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_what_was_not_asked_counts_nowhere():
    values = np.array([[1.0, NAN, 0.0], [NAN, NAN, 1.0], [NAN, NAN, NAN]])
    found = crossed_estimate(values, 200, 0)
    assert (found.value, found.n) == (pytest.approx(2 / 3), 3)
    # the user and the prompt without any outcome are not resampled either
    assert crossed_estimate(values[:2][:, [0, 2]], 200, 0) == found


def test_all_alike_is_not_certainty_but_as_sure_as_there_are_images():
    nothing = np.zeros((100, 20))
    shared = np.tile(np.arange(20), (100, 1))
    found = crossed_estimate(nothing, 200, 0, shared, bounded=True)
    wilson = rate([False] * 20)
    assert (found.value, found.low, found.high, found.n) == (0, wilson.low, wilson.high, 2000)
    own = crossed_estimate(nothing, 200, 0, np.arange(2000).reshape(100, 20), bounded=True)
    assert own.high == pytest.approx(rate([False] * 2000).high)
    assert crossed_estimate(nothing + 1, 200, 0, shared, bounded=True).low == pytest.approx(
        rate([True] * 20).low
    )
    assert width(crossed_estimate(nothing, 200, 0, shared)) == 0  # a distance may be exactly 0


def test_images_that_nobody_was_asked_about_are_no_evidence():
    values = np.array([[0.0, 0.0, NAN], [0.0, NAN, NAN]])
    images = np.array([[0, 1, 2], [0, 3, 4]])
    found = crossed_estimate(values, 200, 0, images, bounded=True)
    assert (found.high, found.n) == (rate([False] * 2).high, 3)
    # two images behind each outcome are one outcome still
    pairs = crossed_estimate(np.zeros((1, 2)), 9, 0, np.arange(4).reshape(1, 2, 2), bounded=True)
    assert pairs.high == rate([False] * 2).high


def test_a_ratio_is_of_sums():
    above, below = np.array([[1.0, 4.0, NAN]]), np.array([[2.0, 4.0, 100.0]])
    found = crossed_estimate(above, 500, 0, over=below)
    assert (found.value, found.n) == (pytest.approx(5 / 6), 2)
    assert (found.low, found.high) == (0.5, 1.0)  # all draws of the one prompt, or of the other
    fixed = crossed_estimate(PROMPTS[None] * 0.9, 100, 0, over=PROMPTS[None])
    assert (fixed.low, fixed.high) == pytest.approx((0.9, 0.9))


def test_pairs_of_users_are_resampled_by_user():
    # user 0 differs from all others, who do not differ among themselves: 19 of 190 pairs
    pairs = np.array([(u, v) for u in range(20) for v in range(u)])
    values = (pairs == 0).any(1)[:, None].astype(float).repeat(3, axis=1)
    found = crossed_estimate(values, 4000, 0, bounded=True, units=pairs)
    assert (found.value, found.n) == (pytest.approx(0.1), 570)
    # user 0 is drawn never with probability .36, and rarely more than 3 times: then, as the squares
    # of all counts sum to about 40, it is in 3 x 17 of (20^2 - 40) / 2 pairs
    assert found.low == 0
    assert found.high == pytest.approx(3 * 17 / 180, abs=0.05)
    naive = crossed_estimate(values, 4000, 0, bounded=True)
    assert width(naive) < width(found) / 2


def test_the_same_seed_gives_the_same_interval_in_parts_too(monkeypatch):
    values = RNG.normal(size=(12, 9))
    found = crossed_estimate(values, 300, 3)
    assert crossed_estimate(values, 300, 3) == found != crossed_estimate(values, 300, 4)
    monkeypatch.setattr("pipeline.personal.crossed.CHUNK", 100)  # eight resamples at a time
    parts = crossed_estimate(values, 300, 3)
    assert (parts.low, parts.high) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize(
    ("values", "more"),
    [([[NAN, NAN]], {}), ([[1.0, np.inf]], {}), ([[0.0, 0.5]], {"bounded": True}),
     ([[1.0, 1.0]], {"over": np.zeros((1, 2))}), ([[1.0, 1.0]], {"over": np.full((1, 2), NAN)})],
)  # fmt: skip
def test_what_is_no_measurement_is_an_error(values, more):
    with pytest.raises(ValueError):
        crossed_estimate(np.array(values), 10, 0, **more)


def test_a_missing_value_does_not_pass_as_not_asked():
    found = where_asked(np.array([1.0, NAN]), np.array([[True, False], [False, False]]))
    np.testing.assert_array_equal(found, [[1, NAN], [NAN, NAN]])
    with pytest.raises(ValueError, match="asked for is not finite"):
        where_asked(np.array([1.0, NAN]), np.array([[True, True]]))


def unit(n, seed, shift=0.0):
    x = np.random.default_rng(seed).normal(size=(n, 8)) + shift
    return x / np.linalg.norm(x, axis=1, keepdims=True)


HERE, THERE = unit(40, 0, 0.4), unit(40, 1)


@pytest.mark.parametrize("users", [1, 20])
def test_a_distance_that_users_share_is_that_of_one_set(users):
    found = crossed_distance(np.tile(cmmd_parts(HERE, THERE), (users, 1, 1)), 4000, 0)
    one = cmmd_estimate(HERE, THERE, 4000, 0)
    assert (found.value, found.n) == (pytest.approx(one.value), users * 40)
    assert (found.low, found.high) == pytest.approx((one.low, one.high), rel=0.05)


def test_a_distance_differs_as_its_users_do():
    parts = np.stack([cmmd_parts(HERE, THERE), cmmd_parts(THERE, THERE)] * 5)
    found = crossed_distance(parts, 4000, 0)
    assert found.value == pytest.approx(parts[0].mean() / 2)
    # half of ten users at the distance d, half at 0: a standard error of d / 2 / sqrt(10)
    assert width(found) > 2 * 1.96 * parts[0].mean() / 2 / 10**0.5 * 0.9


def test_pictures_that_are_the_base_models_are_at_no_distance():
    found = crossed_distance(cmmd_parts(HERE, HERE)[None], 50, 0)
    assert (found.value, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("parts", [np.empty((0, 4, 4)), np.full((1, 2, 2), NAN)])
def test_a_distance_of_nothing_is_an_error(parts):
    with pytest.raises(ValueError, match="finite parts"):
        crossed_distance(parts, 10, 0)
