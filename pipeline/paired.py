"""Paired tests: two models drew the same prompts from the same seeds; do they differ?

Two-sided unless said otherwise; p is the chance of a difference at least as large when each pair's
two results might as well be swapped.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.distances import gaussian_kernel
from pipeline.metrics import Z95, mean

RESAMPLES = 2000
Z80 = 0.8416212335729143  # of a power of 80 %
FEWEST = 6  # changed pairs, all one way, at which McNemar's exact test falls below 0.05


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """p of McNemar's exact test that two models' yes-no outcomes are as often true.

    Raises ValueError unless there is one outcome of each per pair.
    """
    from scipy.stats import binomtest

    only_one = sum(a and not b for a, b in zip(one, other, strict=True))
    only_other = sum(b and not a for a, b in zip(one, other, strict=True))
    changed = only_one + only_other
    return float(binomtest(only_one, changed).pvalue) if changed else 1.0


def mean_difference(one: Sequence[float], other: Sequence[float], seed: int) -> float:
    """p of a sign-flip permutation test that two models' values have the same mean.

    Raises ValueError unless there is one finite value of each per pair.
    """
    from scipy.stats import permutation_test

    differences = _differences(one, other)
    if not differences.any():
        return 1.0
    done = permutation_test(
        (differences,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=RESAMPLES, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(done.pvalue)


def difference_interval(
    one: Sequence[float], other: Sequence[float], resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean of ``one`` minus ``other`` by pair, and its 95 % percentile bootstrap interval.

    Raises ValueError as ``mean_difference``.
    """
    estimate = mean(_differences(one, other), resamples, seed)
    return estimate.value, estimate.low, estimate.high


def detectable_difference(
    one: Sequence[float], other: Sequence[float], binary: bool = False
) -> float:
    """The smallest true mean difference that a test at 5 % finds with a power of 80 %.

    From the spread of the differences seen, in normal approximation; of yes-no outcomes at least
    so many changed pairs as McNemar's test needs. Raises ValueError as ``mean_difference``.
    """
    differences = _differences(one, other)
    n = len(differences)
    found = (Z95 + Z80) * float(differences.std(ddof=1 if n > 1 else 0)) / n**0.5
    return max(found, FEWEST / n) if binary else found


def _differences(one: Sequence[float], other: Sequence[float]) -> np.ndarray:
    pairs = list(zip(one, other, strict=True))
    differences = np.asarray([a - b for a, b in pairs], np.float64)
    if not len(differences) or not np.isfinite(differences).all():
        raise ValueError("a paired test needs finite values, one of each model per pair")
    return differences


def further_away(one: np.ndarray, other: np.ndarray, reference: np.ndarray, seed: int) -> float:
    """p of a one-sided swap test that ``one`` is no further from a reference than ``other``.

    Distance is CMMD; all are unit CLIP embeddings, ``one`` and ``other`` (n, dim) row by row of the
    same prompts, ``reference`` (m, dim). With CMMD's wide kernel this is nearly a test of mean
    embeddings: a loss of variety alone hardly shows.
    """
    n = len(one)
    if len(other) != n or not n:
        raise ValueError(f"paired sets need equal sizes above 0, got {n} and {len(other)}")
    points = np.concatenate([one, other]).astype(np.float64)
    near = gaussian_kernel(points, points).mean(1)
    across = gaussian_kernel(points, np.asarray(reference, np.float64)).mean(1)
    # the difference of the two distances is linear in which of a pair counts as one's: swapping
    # pair i changes the sign of its share
    shares = (2 * (near[:n] - near[n:]) - 2 * (across[:n] - across[n:])) / n
    if not shares.any():
        return 1.0
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(RESAMPLES, n))
    return float((1 + (signs @ shares >= shares.sum()).sum()) / (RESAMPLES + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many tests there are (Holm 1979), in their order."""
    order = np.argsort(p_values)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[k]))
        corrected[k] = largest
    return corrected
