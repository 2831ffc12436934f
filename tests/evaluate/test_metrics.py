import numpy as np
import pytest

from pipeline.evaluate.metrics import mean, rate, spread


def test_wilson_interval_by_hand():
    # 8 of 10, z = 1.96: (.8 + z^2/20 +- z sqrt(.8 .2/10 + z^2/400)) / (1 + z^2/10)
    estimate = rate([True] * 8 + [False] * 2)
    assert (estimate.value, estimate.n) == (0.8, 10)
    assert estimate.low == pytest.approx(0.4902, abs=1e-4)
    assert estimate.high == pytest.approx(0.9433, abs=1e-4)


def test_wilson_interval_at_the_ends_stays_in_range():
    assert rate([False] * 20).low == 0.0
    assert rate([False] * 20).high == pytest.approx(0.1611, abs=1e-4)
    assert rate([True] * 20).high == 1.0


@pytest.mark.parametrize("n", [1, 7, 20, 140])
def test_wilson_intervals_are_scipys(n):
    from scipy.stats import binomtest

    for k in {0, 1, n // 3, n - 1, n}:
        theirs = binomtest(k, n).proportion_ci(method="wilson")
        estimate = rate([True] * k + [False] * (n - k))
        assert (estimate.low, estimate.high) == pytest.approx(tuple(theirs), abs=1e-9)


def test_nothing_measured_is_an_error_not_zero():
    with pytest.raises(ValueError):
        rate([])
    with pytest.raises(ValueError):
        mean([], 10, 0)
    with pytest.raises(ValueError):
        mean([1.0, float("nan")], 10, 0)


def test_mean_and_its_interval():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    estimate = mean(values, 2000, seed=1)
    assert estimate.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.03)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.03)
    assert mean(values, 2000, seed=1) == estimate


def test_a_large_sample_is_resampled_in_parts(monkeypatch):
    values = np.random.default_rng(0).normal(5, 2, size=100)
    whole = mean(values, 500, seed=1)
    monkeypatch.setattr("pipeline.evaluate.metrics.CHUNK", 250)  # two resamples at a time
    parts = mean(values, 500, seed=1)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=1e-9)


def test_spread_and_contract_form():
    assert spread([1.0, 3.0], 7).as_dict() == {"value": 2.0, "low": 1.0, "high": 3.0, "n": 7}
