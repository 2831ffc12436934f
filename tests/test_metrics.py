import numpy as np
import pytest

from pipeline.metrics import cmmd, cmmd_estimate, mean, rate, spread


def unit(n, seed, shift=0.0):
    x = np.random.default_rng(seed).normal(size=(n, 16)) + shift
    return x / np.linalg.norm(x, axis=1, keepdims=True)


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


def test_nothing_measured_is_an_error_not_zero():
    with pytest.raises(ValueError):
        rate([])
    with pytest.raises(ValueError):
        mean([], 10, 0)
    with pytest.raises(ValueError):
        mean([1.0, float("nan")], 10, 0)
    with pytest.raises(ValueError):
        cmmd_estimate(unit(3, 0), unit(4, 0), 10, 0)


def test_mean_and_its_interval():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    estimate = mean(values, 2000, seed=1)
    assert estimate.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.03)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.03)
    assert mean(values, 2000, seed=1) == estimate


def test_cmmd_by_hand():
    # one point each at distance 2: k(x,x) = k(y,y) = 1, k(x,y) = exp(-4/200)
    x, y = np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])
    assert cmmd(x, y) == pytest.approx(1000 * (2 - 2 * np.exp(-4 / 200)))


def test_cmmd_of_a_set_with_itself_is_zero_and_grows_with_the_shift():
    x = unit(50, 0)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-9)
    near, far = cmmd(x, unit(50, 1, 0.3)), cmmd(x, unit(50, 1, 2.0))
    assert 0 < near < far


def test_cmmd_interval_holds_the_value():
    estimate = cmmd_estimate(unit(80, 0), unit(80, 1, 1.0), 500, 0)
    assert 0 < estimate.low < estimate.value < estimate.high
    for shift in (0.02, 0.1, 0.4):  # also small distances lie inside their interval
        small = cmmd_estimate(unit(96, 0), unit(96, 0, shift), 500, 0)
        assert small.low <= small.value <= small.high
    same = cmmd_estimate(unit(80, 0), unit(80, 0), 500, 0)
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-9)


def test_spread_and_contract_form():
    assert spread([1.0, 3.0], 7).as_dict() == {"value": 2.0, "low": 1.0, "high": 3.0, "n": 7}
