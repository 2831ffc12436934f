"""Metrics as pure functions of arrays; every value comes with n and a 95 % interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

Z95 = 1.959963984540054
CHUNK = 10_000_000  # resampled values held at once


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """The contract's JSON form."""
        return rounded(asdict(self))


def rounded(values: Mapping[str, object]) -> dict[str, object]:
    """Values with floats to five decimals, so that files do not differ in the last bits."""
    # + 0.0: no minus zero
    return {k: round(v, 5) + 0.0 if isinstance(v, float) else v for k, v in values.items()}


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
    rows = max(1, CHUNK // len(array))
    draws = np.concatenate([
        array[rng.integers(len(array), size=(min(rows, resamples - k), len(array)))].mean(1)
        for k in range(0, resamples, rows)
    ])  # fmt: skip
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(array.mean()), float(low), float(high), len(array))


def unbiased(value: float, draws: np.ndarray, n: int) -> Estimate:
    """A distance, >= 0, with its reverse percentile bootstrap interval, the draws' bias removed.

    For what a resample, which repeats items, makes larger by more than small values.
    """
    low, high = value - np.quantile(draws - draws.mean(), [0.975, 0.025])
    return Estimate(max(0.0, value), max(0.0, float(low)), float(high), n)


def spread(values: Sequence[float], n: int) -> Estimate:
    """Mean of repeated measurements with their smallest and largest as the interval."""
    return Estimate(float(np.mean(values)), float(min(values)), float(max(values)), n)
