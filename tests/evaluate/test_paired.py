import math

import numpy as np
import pytest

from pipeline.evaluate.distances import cmmd
from pipeline.evaluate.paired import (
    detectable_difference,
    difference_interval,
    further_away,
    holm,
    mcnemar,
    mean_difference,
)


def unit(angles):
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def test_mcnemar_counts_only_what_changed():
    # 5 of 9 changed, all one way: 2 / 2^5
    one, other = [True] * 7 + [False] * 2, [False] * 5 + [True] * 2 + [False] * 2
    assert mcnemar(one, other) == pytest.approx(2 / 32) == mcnemar(other, one)
    assert mcnemar([True, False], [False, True]) == 1.0  # as often each way
    assert mcnemar([True, False], [True, False]) == 1.0
    with pytest.raises(ValueError):
        mcnemar([True], [True, False])


def test_a_shift_of_every_pair_is_seen_where_the_means_alone_would_not_tell():
    values = np.random.default_rng(0).normal(0, 10, 12)
    assert mean_difference(values + 0.1, values, seed=0) < 0.005
    noise = np.random.default_rng(1).normal(0, 1, 12)
    assert mean_difference(values + noise, values, seed=0) > 0.05
    assert mean_difference(values, values, seed=0) == 1.0
    with pytest.raises(ValueError, match="finite values"):
        mean_difference([math.nan], [1.0], seed=0)


def test_a_sign_flip_by_hand():
    # differences 1, 1, 1, -1: of 16 sign patterns 10 have a mean as far from 0 as 1/2
    assert mean_difference([2, 2, 2, 1], [1, 1, 1, 2], seed=0) == pytest.approx(10 / 16)


def test_moving_away_from_the_reference_is_seen_and_moving_closer_is_not():
    rng = np.random.default_rng(0)
    reference, base = unit(rng.normal(0, 0.2, 60)), unit(rng.normal(0, 0.2, 40))
    angles = np.arctan2(base[:, 1], base[:, 0])
    away, same = unit(angles + 0.3), unit(angles + rng.normal(0, 0.02, 40))
    assert further_away(away, base, reference, seed=0) < 0.01
    assert further_away(base, away, reference, seed=0) > 0.9
    assert further_away(same, base, reference, seed=0) > 0.05
    assert further_away(base, base, reference, seed=0) == 1.0
    with pytest.raises(ValueError, match="equal sizes above 0, got 2 and 40"):
        further_away(base[:2], base, reference, seed=0)


def test_the_swap_test_is_about_the_difference_of_the_two_distances():
    rng = np.random.default_rng(1)
    one, other, reference = (unit(rng.normal(m, 0.5, 5)) for m in (0.4, 0.1, 0.0))

    def excess(swapped):
        first, second = (
            np.where(swapped[:, None], other, one),
            np.where(swapped[:, None], one, other),
        )
        return cmmd(first, reference) - cmmd(second, reference)

    every = [np.array([k >> i & 1 for i in range(5)], bool) for k in range(32)]
    exact = np.mean([excess(swapped) >= excess(every[0]) - 1e-12 for swapped in every])
    assert further_away(one, other, reference, seed=0) == pytest.approx(exact, abs=0.03)


def test_an_interval_is_scipys():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(0)
    one, other = rng.gamma(2, 5, 60), rng.gamma(2, 4, 60)  # skewed: not symmetric about the mean
    given = difference_interval(one, other, 9999, seed=0)[1:]
    theirs = bootstrap((one - other,), np.mean, method="percentile", rng=1).confidence_interval
    assert given == pytest.approx(tuple(theirs), abs=0.15)
    assert theirs.high - theirs.low > 3


def test_holm_by_hand():
    # sorted .01, .02, .04 times 3, 2, 1: .03, .04, .04
    assert holm([0.02, 0.04, 0.01]) == pytest.approx([0.04, 0.04, 0.03])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_a_difference_comes_with_its_paired_interval():
    rng = np.random.default_rng(0)
    other = rng.normal(50, 10, size=400)
    one = other + rng.normal(1, 2, size=400)  # the spread between prompts must not count
    value, low, high = difference_interval(one, other, 2000, seed=0)
    assert value == pytest.approx((one - other).mean())
    half = 1.96 * (one - other).std() / 20
    assert (value - low, high - value) == (pytest.approx(half, abs=0.05),) * 2
    with pytest.raises(ValueError, match="one of each model per pair"):
        difference_interval([math.nan], [1.0], 10, 0)


@pytest.mark.parametrize("level", [0.05, 0.05 / 8])
def test_the_detectable_difference_is_found_four_times_in_five(level):
    rng = np.random.default_rng(0)
    n, found = 60, []
    size = detectable_difference(rng.normal(0, 1, 5000), np.zeros(5000), level) * (5000 / n) ** 0.5
    for seed in range(150):
        p = mean_difference(rng.normal(size, 1, n), np.zeros(n), seed, tests=round(0.05 / level))
        found.append(p < level)
    assert 0.7 < sum(found) / len(found) < 0.9


@pytest.mark.parametrize(("level", "fewest"), [(0.05, 6), (0.05 / 8, 9)])
def test_yes_no_outcomes_need_as_many_changes_as_mcnemar_does(level, fewest):
    def changed(k):
        return [False] * k + [True] * (100 - k)

    same = [True] * 100
    assert detectable_difference(same, same, level, binary=True) == pytest.approx(fewest / 100)
    assert mcnemar(same, changed(fewest)) < level <= mcnemar(same, changed(fewest - 1))
    assert detectable_difference([1, 0] * 50, [0, 1] * 50, level, binary=True) > 0.2


def test_what_cannot_be_told_is_not_given_a_number():
    assert detectable_difference([True] * 4, [False] * 4, 0.05, binary=True) is None  # 6 of 4
    assert detectable_difference([1.0, 2.0], [1.0, 2.0], 0.05) is None


def test_p_values_fall_far_enough_for_the_number_of_tests():
    one, other = np.arange(40) + 1.0, np.arange(40) - 9.0
    rng = np.random.default_rng(0)
    near, far, reference = (unit(rng.normal(m, 0.1, 40)) for m in (0.0, 0.5, 0.0))
    for tests in (1, 60, 200):
        assert holm([mean_difference(one, other, 0, tests)] * tests)[0] < 0.05
        assert holm([further_away(far, near, reference, 0, tests)] * tests)[0] < 0.05
