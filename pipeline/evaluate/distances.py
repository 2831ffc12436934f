"""Distances between two image sets as pure functions of their feature matrices, rows are images.

Every distance's ``n`` is how many rows of the first set it used. A distance of sample sets depends
on their sizes (CMMD and FID shrink as they grow, KID does not): compare values of equal sizes only.
All raise ValueError for features that are not two matrices of finite numbers of one width.
"""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.evaluate.metrics import Z95, Estimate, unbiased

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # arXiv 2401.09603
CMMD_ROWS = 5000  # of each set; three kernel matrices of 200 MB
KID_SUBSETS, KID_ROWS = 100, 1000  # arXiv 1801.01401
CHUNK = 256  # resamples or rows whose products are held at once


def gaussian_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """CMMD's kernel between the rows of x (n, dim) and y (m, dim), (n, m) in (0, 1]."""
    kernel = (x * x).sum(1)[:, None] + (y * y).sum(1)[None]
    kernel -= 2 * x @ y.T
    np.maximum(kernel, 0, out=kernel)
    kernel /= -2 * CMMD_SIGMA**2
    return np.exp(kernel, out=kernel)


def cmmd(x: np.ndarray, y: np.ndarray, seed: int = 0) -> float:
    """CMMD of two sets of unit CLIP image embeddings (n, dim), (m, dim); lower is closer, >= 0.

    1000 x squared MMD with a Gaussian kernel of sigma 10, the minimum-variance biased estimate of
    arXiv 2401.09603. A set's distance to itself is 0. Of a set of more than CMMD_ROWS only as many
    rows count, drawn by the seed, the same ones of two sets of equal size.
    """
    return _cmmd_of(_kernels(*_checked(x, y), seed))


def cmmd_estimate(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> Estimate:
    """CMMD with a bootstrap interval that resamples the rows of x and y together (paired sets).

    A resample repeats rows and thereby biases the MMD upwards by more than small values, so the
    interval is the reverse percentile one about the value, with that bias removed.

    Raises ValueError unless both have one row per item.
    """
    if len(x) != len(y) or not len(x):
        raise ValueError(f"paired sets need equal sizes above 0, got {len(x)} and {len(y)}")
    return _cmmd_interval(_kernels(*_checked(x, y), seed), resamples, seed, paired=True)


def cmmd_unpaired_estimate(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> Estimate:
    """CMMD of sets of any two sizes; ``cmmd_estimate``'s interval, x and y resampled apart."""
    return _cmmd_interval(_kernels(*_checked(x, y), seed), resamples, seed, paired=False)


def cmmd_parts(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What each pair of items adds to ``cmmd`` of two paired sets, (n, n); that is its mean.

    Raises ValueError unless both have one row per item.
    """
    if len(x) != len(y):
        raise ValueError(f"paired sets need equal sizes, got {len(x)} and {len(y)}")
    x, y = _checked(x, y)
    across = gaussian_kernel(x, y)
    return CMMD_SCALE * (gaussian_kernel(x, x) + gaussian_kernel(y, y) - across - across.T)


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of the Gaussians of two sets of Inception features (n, dim), (m, dim); >= 0.

    |mean_x - mean_y|^2 + Tr(S_x + S_y - 2 (S_x S_y)^1/2) with unbiased covariances S, as in
    arXiv 1706.08500. Raises ValueError for a set of fewer than 2 rows.
    """
    x, y = _checked(x, y, least=2)
    shift, one, other = x.mean(0) - y.mean(0), _covariance_root(x), _covariance_root(y)
    return _frechet(shift, one, other, np.linalg.svd(one @ other.T, compute_uv=False))


def fid_estimate(x: np.ndarray, y: np.ndarray) -> Estimate:
    """FID with the normal interval of its infinitesimal jackknife (Efron 1982), x and y apart.

    The jackknife's variance is that of every row's derivative of the FID, which one decomposition
    gives exactly: no resampling. It says how far the FID of other sets *of these sizes* may lie,
    somewhat too far for sets that hardly differ or have fewer rows than dimensions; the upward
    bias that an FID of few images has stays. Raises ValueError for a set of fewer than 2 rows.
    """
    x, y = _checked(x, y, least=2)
    shift, one, other = x.mean(0) - y.mean(0), _covariance_root(x), _covariance_root(y)
    left, roots, right = np.linalg.svd(one @ other.T, full_matrices=False)
    value = _frechet(shift, one, other, roots)
    kept = roots > roots[0] * 1e-12
    variance = _jackknife_variance(x, shift, other.T @ right[kept].T, roots[kept])
    variance += _jackknife_variance(y, -shift, one.T @ left[:, kept], roots[kept])
    half = Z95 * math.sqrt(variance)
    return Estimate(value, max(0.0, value - half), value + half, len(x))


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """KID of two sets of Inception features (n, dim), (m, dim); lower is closer, about 0 if alike.

    The unbiased squared MMD, which may be negative, with the kernel (x.y / dim + 1)^3 of
    arXiv 1801.01401, of all rows. Raises ValueError for a set of fewer than 2 rows.
    """
    x, y = _checked(x, y, least=2)
    across = _cubic_sum(x, y) / (len(x) * len(y))
    return _within(x) + _within(y) - 2 * across


def kid_estimate(
    x: np.ndarray, y: np.ndarray, seed: int, subsets: int = KID_SUBSETS, subset_size: int = KID_ROWS
) -> Estimate:
    """Mean KID of random subsets, as published, with the interval that their spread implies.

    Subsets have at most half as many rows as the smaller set: only subsets that differ have a
    spread. It is that of KIDs of ``subset_size`` rows and is scaled to the KID of the whole sets
    (subsampling, Politis and Romano 1994). Raises ValueError for sets of fewer than 4 rows, two of
    which are half, and for fewer than 2 subsets.
    """
    x, y = _checked(x, y, least=4)
    smaller = min(len(x), len(y))
    size = min(subset_size, smaller // 2)
    if subsets < 2:
        raise ValueError(f"a spread needs at least 2 subsets, got {subsets}")
    rng = np.random.default_rng(seed)
    values = [
        kid(*(s[rng.choice(len(s), size, replace=False)] for s in (x, y))) for _ in range(subsets)
    ]
    value, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = Z95 * spread * math.sqrt(size / (smaller - size) + 1 / subsets)
    return Estimate(value, value - half, value + half, len(x))


def _checked(x: np.ndarray, y: np.ndarray, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features are (images, width) of one width, got {x.shape} and {y.shape}")
    if min(len(x), len(y)) < least:
        raise ValueError(f"this distance needs {least} or more rows, got {len(x)} and {len(y)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a distance needs finite features, got NaN or infinity")
    return x, y


def thin(x: np.ndarray, seed: int) -> np.ndarray:
    """At most CMMD_ROWS of the rows, drawn by the seed; the same ones of two sets of one size."""
    if len(x) <= CMMD_ROWS:
        return x
    rows = np.random.default_rng([seed, 1]).choice(len(x), CMMD_ROWS, replace=False)
    return x[np.sort(rows)]


def _kernels(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = thin(x, seed), thin(y, seed)
    return gaussian_kernel(x, x), gaussian_kernel(y, y), gaussian_kernel(x, y)


def _cmmd_of(kernels: Sequence[np.ndarray]) -> float:
    within_x, within_y, across = (float(kernel.mean()) for kernel in kernels)
    return CMMD_SCALE * max(0.0, within_x + within_y - 2 * across)


def _cmmd_interval(
    kernels: Sequence[np.ndarray], resamples: int, seed: int, paired: bool
) -> Estimate:
    within_x, within_y, across = kernels
    for_x, for_y = np.random.default_rng(seed), np.random.default_rng([seed, 2])
    draws = []
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        a = _bootstrap_weights(for_x, len(within_x), count)
        b = a if paired else _bootstrap_weights(for_y, len(within_y), count)
        alike = ((a @ within_x) * a).sum(1) + ((b @ within_y) * b).sum(1)
        draws.append(CMMD_SCALE * (alike - 2 * ((a @ across) * b).sum(1)))
    return unbiased(_cmmd_of(kernels), np.concatenate(draws), len(within_x))


def _bootstrap_weights(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """The share of each of n rows in ``count`` resamples, (count, n)."""
    drawn = rng.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n) / n


def _covariance_root(x: np.ndarray) -> np.ndarray:
    """A matrix R (rows, dim) of at most dim rows with R^T R the covariance of x."""
    centred = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    return np.linalg.qr(centred, mode="r") if len(x) > x.shape[1] else centred


def _frechet(shift: np.ndarray, one: np.ndarray, other: np.ndarray, roots: np.ndarray) -> float:
    # the singular values of R_x R_y^T are the roots of the eigenvalues of S_x S_y, without the
    # root of a rounding error where a covariance has no full rank
    value = shift @ shift + (one * one).sum() + (other * other).sum() - 2 * roots.sum()
    return max(0.0, float(value))


def _jackknife_variance(
    x: np.ndarray, shift: np.ndarray, to_roots: np.ndarray, roots: np.ndarray
) -> float:
    """Variance of the FID that the rows of one set bring; ``shift`` from the other set's mean."""
    centred = x - x.mean(0)
    # the trace's derivative is the map that carries this set's Gaussian into the other's
    carried = ((centred @ to_roots) ** 2 / roots).sum(1)
    share = 2 * centred @ shift + (centred * centred).sum(1) - carried
    return float(share.var(ddof=1)) / len(x)


def _cubic_sum(x: np.ndarray, y: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(x), KID_ROWS):
        base = x[start : start + KID_ROWS] @ y.T / x.shape[1] + 1
        total += float((base * base * base).sum())
    return total


def _within(x: np.ndarray) -> float:
    """Mean kernel between two different rows of x."""
    itself = float((((x * x).sum(1) / x.shape[1] + 1) ** 3).sum())
    return (_cubic_sum(x, x) - itself) / (len(x) * (len(x) - 1))
