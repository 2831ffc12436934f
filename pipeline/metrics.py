"""Metrics as pure functions of arrays; every value comes with n and a 95 % interval."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

Z95 = 1.959963984540054
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # arXiv 2401.09603


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """The contract's JSON form, rounded so that files do not differ in the last bits."""
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self).items()}


def rate(outcomes: Sequence[bool]) -> Estimate:
    """Share of true outcomes with the Wilson score interval; ValueError when there are none."""
    n = len(outcomes)
    if n == 0:
        raise ValueError("a rate needs at least one outcome")
    p = sum(map(bool, outcomes)) / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half), n)


def mean(values: Sequence[float], resamples: int, seed: int) -> Estimate:
    """Mean with its percentile bootstrap interval.

    Raises ValueError when there are no values or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or not np.isfinite(array).all():
        raise ValueError(f"a mean needs finite values, got {len(array)} with NaN or none at all")
    rng = np.random.default_rng(seed)
    draws = array[rng.integers(len(array), size=(resamples, len(array)))].mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(array.mean()), float(low), float(high), len(array))


def gaussian_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """CMMD's kernel between the rows of x (n, dim) and y (m, dim), (n, m)."""
    square = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T
    return np.exp(-np.maximum(square, 0) / (2 * CMMD_SIGMA**2))


def cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """CMMD of two sets of unit CLIP image embeddings (n, dim), (m, dim); lower is closer, >= 0.

    1000 x squared MMD with a Gaussian kernel of sigma 10, the minimum-variance biased estimate of
    arXiv 2401.09603. A set's distance to itself is 0.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    value = (
        gaussian_kernel(x, x).mean()
        + gaussian_kernel(y, y).mean()
        - 2 * gaussian_kernel(x, y).mean()
    )
    return CMMD_SCALE * max(0.0, float(value))


def cmmd_estimate(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> Estimate:
    """CMMD with a bootstrap interval that resamples the rows of x and y together (paired sets).

    A resample repeats rows and thereby biases the MMD upwards by more than small values, so the
    interval is the reverse percentile one about the value, with that bias removed.

    Raises ValueError unless both have one row per item.
    """
    if len(x) != len(y) or not len(x):
        raise ValueError(f"paired sets need equal sizes above 0, got {len(x)} and {len(y)}")
    value, n = cmmd(x, y), len(x)
    within_x, within_y, across = gaussian_kernel(x, x), gaussian_kernel(y, y), gaussian_kernel(x, y)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        weights = np.bincount(rng.integers(n, size=n), minlength=n) / n
        draws.append(weights @ (within_x + within_y - 2 * across) @ weights * CMMD_SCALE)
    low, high = value - np.quantile(np.asarray(draws) - np.mean(draws), [0.975, 0.025])
    return Estimate(value, max(0.0, float(low)), float(high), n)


def spread(values: Sequence[float], n: int) -> Estimate:
    """Mean of repeated measurements with their smallest and largest as the interval."""
    return Estimate(float(np.mean(values)), float(min(values)), float(max(values)), n)
