import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from pipeline.evaluate import distances
from pipeline.evaluate.distances import (
    cmmd,
    cmmd_estimate,
    cmmd_parts,
    cmmd_unpaired_estimate,
    fid,
    fid_estimate,
    gaussian_kernel,
    kid,
    kid_estimate,
)

ESTIMATES = {
    "cmmd": lambda x, y: cmmd_estimate(x, y, 20, 0),
    "cmmd_unpaired": lambda x, y: cmmd_unpaired_estimate(x, y, 20, 0),
    "fid": fid_estimate,
    "kid": lambda x, y: kid_estimate(x, y, 0, subsets=20),
}


def unit(n, seed, shift=0.0, width=16):
    x = np.random.default_rng(seed).normal(size=(n, width)) + shift
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def features(n, seed, shift=0.0, width=24):
    """Skewed and correlated rows >= 0, as pooled activations are."""
    mixing = np.random.default_rng(99).normal(size=(width, width)) / np.sqrt(width)
    rows = np.random.default_rng(seed).normal(size=(n, width)) * np.geomspace(1, 0.1, width)
    return np.maximum(rows @ mixing + shift, 0).astype(np.float32)


def published_fid(x, y):
    sets = (fid_features_to_statistics(torch.from_numpy(s)) for s in (x, y))
    return fid_statistics_to_metric(*sets, verbose=False)[KEY_METRIC_FID]


def published_kid(x, y, **options):
    sets = (torch.from_numpy(s) for s in (x, y))
    return kid_features_to_metric(*sets, verbose=False, **options)[KEY_METRIC_KID_MEAN]


def test_cmmd_by_hand():
    # one point each at distance 2: k(x,x) = k(y,y) = 1, k(x,y) = exp(-4/200)
    x, y = np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])
    assert cmmd(x, y) == pytest.approx(1000 * (2 - 2 * np.exp(-4 / 200)))


def test_the_mean_of_its_parts_is_cmmd():
    x, y = unit(12, 0), unit(12, 1, 0.3)
    assert cmmd_parts(x, y).mean() == pytest.approx(cmmd(x, y))
    some = [0, 3, 3, 7]  # of the same items, such as a resample's
    assert cmmd_parts(x, y)[np.ix_(some, some)].mean() == pytest.approx(cmmd(x[some], y[some]))
    assert not cmmd_parts(x, x).any()
    with pytest.raises(ValueError, match="equal sizes, got 12 and 11"):
        cmmd_parts(x, y[:11])


def test_cmmd_is_the_papers_sum_over_pairs():
    x, y = unit(40, 0), unit(30, 1, 0.3)

    def mean_kernel(a, b):
        return np.mean([[np.exp(-((p - q) ** 2).sum() / (2 * 10**2)) for q in b] for p in a])

    written_out = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert cmmd(x, y) == pytest.approx(written_out, rel=1e-9)
    assert gaussian_kernel(x, y)[2, 3] == pytest.approx(np.exp(-((x[2] - y[3]) ** 2).sum() / 200))


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


@pytest.mark.parametrize("paired", [True, False])
def test_resampling_by_matrices_is_the_loop_over_resamples(paired, monkeypatch):
    monkeypatch.setattr(distances, "CHUNK", 7)
    x, y = unit(25, 0), unit(25 if paired else 31, 1, 0.5)
    for_x, for_y, draws = np.random.default_rng(3), np.random.default_rng([3, 2]), []
    for _ in range(40):
        rows = for_x.integers(len(x), size=len(x))
        others = rows if paired else for_y.integers(len(y), size=len(y))
        a, b = x[rows], y[others]
        draws.append(1000 * (gaussian_kernel(a, a).mean() + gaussian_kernel(b, b).mean()
                             - 2 * gaussian_kernel(a, b).mean()))  # fmt: skip
    low, high = cmmd(x, y) - np.quantile(np.array(draws) - np.mean(draws), [0.975, 0.025])
    estimate = (cmmd_estimate if paired else cmmd_unpaired_estimate)(x, y, 40, 3)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)


def test_unpaired_sets_are_resampled_apart():
    shared = unit(60, 0)
    x, y = shared, shared + 0.001 * unit(60, 1)  # pair by pair nearly the same
    paired, unpaired = cmmd_estimate(x, y, 300, 0), cmmd_unpaired_estimate(x, y, 300, 0)
    assert paired.value == unpaired.value
    assert paired.high - paired.low < 0.01 * (unpaired.high - unpaired.low)


def test_more_rows_than_the_cap_are_thinned_by_the_seed_pairs_together(monkeypatch):
    x, y = unit(90, 0), unit(90, 1, 0.5)
    whole = cmmd(x, y)
    monkeypatch.setattr(distances, "CMMD_ROWS", 60)
    one, again = (cmmd_estimate(x, y, 50, 0) for _ in range(2))
    assert one == again and one.n == 60
    assert cmmd(x, y) == one.value != cmmd(x, y, seed=1)
    assert one.value == pytest.approx(whole, rel=0.2)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-9)
    few = cmmd_unpaired_estimate(x[:20], y, 50, 0)
    assert few.n == 20 and few.low <= few.value <= few.high


def test_fid_of_two_gaussians_by_hand():
    # means 0 and 3, variances 2 and 8: 9 + 2 + 8 - 2 sqrt(16)
    x, y = np.array([[-1.0], [1.0]]), np.array([[1.0], [5.0]])
    assert fid(x, y) == pytest.approx(11)


@pytest.mark.parametrize("n, m", [(400, 300), (400, 15), (10, 15)])
def test_fid_agrees_with_torch_fidelity_also_with_fewer_rows_than_dimensions(n, m):
    x, y = features(n, 0), features(m, 1, 0.2)
    assert fid(x, y) == pytest.approx(published_fid(x, y), rel=1e-5)


@pytest.mark.parametrize("n", [6, 200])
def test_fid_by_hand_with_and_without_full_rank(n):
    x = features(n, 0).astype(np.float64)
    centre, variance = x.mean(0), x.var(0, ddof=1).sum()
    assert fid(x, x) == pytest.approx(0, abs=1e-9)
    assert fid(x, x + 0.5) == pytest.approx(24 * 0.25)  # a shift of every dimension
    assert fid(x, centre + 3 * (x - centre)) == pytest.approx(variance * (3 - 1) ** 2)


def test_fids_interval_is_how_far_fids_of_other_sets_lie():
    def drawn(n, k):
        return features(n, 2 * k), features(n, 2 * k + 1, 0.2)

    for n in (20, 150):  # fewer rows than dimensions, and more
        estimates = [fid_estimate(*drawn(n, k)) for k in range(100)]
        implied = np.mean([(e.high - e.value) / 1.96 for e in estimates])
        spread = np.std([e.value for e in estimates], ddof=1)
        assert 0.85 * spread < implied < 1.6 * spread
        assert estimates[0].value == pytest.approx(fid(*drawn(n, 0)))
        assert all(e.low < e.value < e.high for e in estimates)


def test_fids_interval_of_two_one_dimensional_sets_by_hand():
    # d FID / d row = 2 shift c + (1 - s_other / s_own) c^2 of c, the row about its set's mean
    x, y = np.array([[-1.0], [0.0], [1.0]]), np.array([[0.0], [4.0], [5.0]])
    variance = 0
    for own, other in ((x, y), (y, x)):
        c = own - own.mean()
        rows = 2 * (own.mean() - other.mean()) * c + (1 - other.std() / own.std()) * c**2
        variance += rows.var(ddof=1) / 3
    estimate = fid_estimate(x, y)
    assert estimate.high - estimate.value == pytest.approx(1.95996 * np.sqrt(variance), rel=1e-5)


def test_kid_by_hand():
    # (x.y + 1)^3 of one dimension: between 0 and 1 it is 1, between 1 and 1 it is 8
    x, y = np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]])
    assert kid(x, y) == pytest.approx(1 + 8 - 2 * (1 + 1 + 8 + 8) / 4)
    assert kid(y, y) == pytest.approx(0)


def test_kid_agrees_with_torch_fidelity(monkeypatch):
    x, y = features(300, 0), features(300, 1, 0.2)
    published = published_kid(x, y, kid_subsets=1, kid_subset_size=300)
    assert published > 0.01
    assert kid(x, y) == pytest.approx(published, rel=1e-4)
    monkeypatch.setattr(distances, "KID_ROWS", 70)  # rows at once, the last are fewer
    assert kid(x, y) == pytest.approx(published, rel=1e-4)


def test_the_mean_over_subsets_agrees_with_torch_fidelity_as_far_as_subsets_differ():
    x, y = features(600, 0), features(500, 1, 0.2)
    published = published_kid(x, y, kid_subsets=100, kid_subset_size=100)
    estimate = kid_estimate(x, y, 0, subset_size=100)
    assert estimate.value == pytest.approx(published, abs=1e-3)
    assert estimate == kid_estimate(x, y, 0, subset_size=100)
    assert estimate.low < kid(x, y) < estimate.high


def test_kids_interval_is_not_narrower_than_kids_of_other_sets_lie():
    for size in (40, 1000):  # 1000 is more than there are
        drawn = [kid_estimate(features(200, 2 * k), features(200, 2 * k + 1, 0.2), k, 40, size)
                 for k in range(60)]  # fmt: skip
        implied = np.mean([(e.high - e.value) / 1.96 for e in drawn])
        spread = np.std([e.value for e in drawn], ddof=1)
        assert 0.85 * spread < implied < 2 * spread


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimate_holds_its_value_and_counts_the_first_set(name):
    estimate = ESTIMATES[name](features(50, 0), features(50, 1, 0.1))
    assert estimate.low <= estimate.value <= estimate.high and estimate.n == 50


@pytest.mark.parametrize("distance", [cmmd, fid, kid, *ESTIMATES.values()])
def test_what_is_no_pair_of_feature_sets_is_refused(distance):
    good, spoilt = features(8, 0), features(8, 1)
    spoilt[3, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        distance(good, spoilt)
    with pytest.raises(ValueError, match="one width"):
        distance(good, features(8, 1, width=5))
    with pytest.raises(ValueError, match="one width"):
        distance(good[0], good[0])
    with pytest.raises(ValueError, match="rows|sizes above 0"):
        distance(good[:0], good[:0])


@pytest.mark.parametrize("distance, rows", [(fid, 1), (fid_estimate, 1), (kid, 1),
                                            (ESTIMATES["kid"], 3)])  # fmt: skip
def test_too_few_rows_for_a_distance_are_refused(distance, rows):
    with pytest.raises(ValueError, match=f"needs {rows + 1} or more rows, got 8 and {rows}"):
        distance(features(8, 0), features(rows, 1))


def test_pairs_need_equal_sizes_and_a_spread_two_subsets():
    with pytest.raises(ValueError, match="equal sizes above 0, got 3 and 4"):
        cmmd_estimate(unit(3, 0), unit(4, 0), 10, 0)
    with pytest.raises(ValueError, match="at least 2 subsets, got 1"):
        kid_estimate(features(8, 0), features(8, 1), 0, subsets=1)
