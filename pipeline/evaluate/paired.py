"""Paired tests: two models drew the same prompts from the same seeds; do they differ?

Two-sided unless said otherwise; p is the chance of a difference at least as large when each pair's
two results might as well be swapped.
"""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.evaluate.distances import gaussian_kernel, thin
from pipeline.evaluate.metrics import mean

RESAMPLES = 2000
RESAMPLES_PER_TEST = 60  # of p-values that are corrected for how many they are
HELD = 10_000_000  # resampled values held at once
POWER = 0.8


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """p of McNemar's exact test that two models' yes-no outcomes are as often true.

    Raises ValueError unless there is one outcome of each per pair.
    """
    from scipy.stats import binomtest

    only_one = sum(a and not b for a, b in zip(one, other, strict=True))
    only_other = sum(b and not a for a, b in zip(one, other, strict=True))
    changed = only_one + only_other
    return float(binomtest(only_one, changed).pvalue) if changed else 1.0


def mean_difference(
    one: Sequence[float], other: Sequence[float], seed: int, tests: int = 1
) -> float:
    """p of a sign-flip permutation test that two models' values have the same mean.

    Its smallest value falls with ``tests``, how many p-values it is to be corrected for. Raises
    ValueError unless there is one finite value of each per pair.
    """
    from scipy.stats import permutation_test

    differences = _differences(one, other)
    if not differences.any():
        return 1.0
    done = permutation_test(
        (differences,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=max(RESAMPLES, RESAMPLES_PER_TEST * tests),
        batch=max(1, HELD // len(differences)), rng=np.random.default_rng(seed),
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
    one: Sequence[float], other: Sequence[float], level: float, binary: bool = False
) -> float | None:
    """The smallest true mean difference that a test at ``level`` finds with a power of 80 %.

    From the spread of the differences seen, in normal approximation; of yes-no outcomes at least
    so many changed pairs, all one way, as McNemar's exact test needs. None where that is more than
    all pairs, and for other values that do not differ at all. Raises ValueError as
    ``mean_difference``.
    """
    from scipy.stats import norm

    differences = _differences(one, other)
    n = len(differences)
    spread = float(differences.std(ddof=1 if n > 1 else 0))
    found = float(norm.isf(level / 2) + norm.ppf(POWER)) * spread / n**0.5
    if not binary:
        return found or None
    fewest = math.floor(math.log2(2 / level)) + 1  # 2 / 2^k < level
    found = max(found, fewest / n)
    return found if found <= 1 else None


def _differences(one: Sequence[float], other: Sequence[float]) -> np.ndarray:
    pairs = list(zip(one, other, strict=True))
    differences = np.asarray([a - b for a, b in pairs], np.float64)
    if not len(differences) or not np.isfinite(differences).all():
        raise ValueError("a paired test needs finite values, one of each model per pair")
    return differences


def further_away(
    one: np.ndarray, other: np.ndarray, reference: np.ndarray, seed: int, tests: int = 1
) -> float:
    """p of a one-sided swap test that ``one`` is no further from a reference than ``other``.

    Distance is CMMD; all are unit CLIP embeddings, ``one`` and ``other`` (n, dim) row by row of the
    same prompts, ``reference`` (m, dim). With CMMD's wide kernel this is nearly a test of mean
    embeddings: a loss of variety alone hardly shows. The smallest p falls with ``tests`` as that of
    ``mean_difference``.
    """
    if len(other) != len(one) or not len(one):
        raise ValueError(f"paired sets need equal sizes above 0, got {len(one)} and {len(other)}")
    one, other = thin(one, seed), thin(other, seed)
    reference, n = thin(reference, seed), len(one)
    points = np.concatenate([one, other]).astype(np.float64)
    near = gaussian_kernel(points, points).mean(1)
    across = gaussian_kernel(points, np.asarray(reference, np.float64)).mean(1)
    # the difference of the two distances is linear in which of a pair counts as one's: swapping
    # pair i changes the sign of its share
    shares = (2 * (near[:n] - near[n:]) - 2 * (across[:n] - across[n:])) / n
    if not shares.any():
        return 1.0
    count, rng = max(RESAMPLES, RESAMPLES_PER_TEST * tests), np.random.default_rng(seed)
    rows, as_far = max(1, HELD // n), 0
    for start in range(0, count, rows):
        signs = rng.choice([-1.0, 1.0], size=(min(rows, count - start), n))
        as_far += int((signs @ shares >= shares.sum()).sum())
    return (1 + as_far) / (count + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many tests there are (Holm 1979), in their order."""
    order = np.argsort(p_values)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[k]))
        corrected[k] = largest
    return corrected
