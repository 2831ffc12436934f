"""Means over users and prompts at once, with intervals that know that outcomes share both.

An outcome of one user and one prompt is not independent of the others: users who share conditions
are shown the same pictures, and a prompt that is easily unsafe is so for everybody. More users
over few prompts make an interval narrower only as far as users do differ.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.evaluate.metrics import CHUNK, Estimate, rate, unbiased


def where_asked(values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Values as float64 where they were asked for, NaN elsewhere; both shapes are broadcast.

    Raises ValueError for a value that was asked for and is not finite: what was not measured must
    not pass as not asked for.
    """
    values, asked = np.broadcast_arrays(np.asarray(values, np.float64), asked)
    if not np.isfinite(values[asked]).all():
        raise ValueError("a value that was asked for is not finite")
    return np.where(asked, values, np.nan)


def crossed_estimate(
    values: np.ndarray, resamples: int, seed: int, images: np.ndarray | None = None,
    bounded: bool = False, over: np.ndarray | None = None, units: np.ndarray | None = None,
) -> Estimate:  # fmt: skip
    """Mean over users and prompts with a two-way cluster bootstrap interval.

    Users and prompts are each resampled with replacement and an outcome counts as often as its
    user times as often as its prompt: the pigeonhole bootstrap (Owen 2007), which is somewhat too
    wide rather than too narrow. Percentile interval. Users and prompts without any outcome are
    left out, resamples without any are too.

    Where all outcomes are 0, or all are 1, every resample is like the other and the bootstrap
    would claim certainty. The interval then is Wilson's, with as many outcomes as there are
    distinct images behind them: one picture that a hundred users are shown is evidence once.

    Args:
        values: (users, prompts), NaN where not asked.
        images: (users, prompts) ids of the images behind the outcomes, or (users, prompts, k) of
            k images behind each; without them, every outcome is taken to have its own.
        bounded: whether the values are outcomes, 0 or 1.
        over: (users, prompts), finite where asked; the value is then sum(values) / sum(over).
        units: (rows, k) numbers of the users behind each row where rows are not users but, say,
            pairs of them; users are resampled, and a row counts as often as the product of its.

    Returns:
        ``n`` is the number of outcomes.

    Raises:
        ValueError: no outcome, an infinite one, one that is neither 0 nor 1 though bounded, or
            ``over`` is not finite or its sum not above 0.
    """
    values = np.asarray(values, np.float64)
    there = ~np.isnan(values)
    below = there.astype(np.float64) if over is None else np.where(there, over, 0.0)
    outcomes = values[there]
    _check(outcomes, below, bounded)
    value = float(outcomes.sum() / below.sum())
    if bounded and over is None and np.ptp(outcomes) == 0:
        distinct = len(outcomes) if images is None else len(np.unique(images[there]))
        wilson = rate([value > 0] * min(len(outcomes), distinct))
        return Estimate(value, wilson.low, wilson.high, len(outcomes))
    units = np.arange(len(values))[:, None] if units is None else np.asarray(units)
    rows, columns = there.any(1), there.any(0)
    above = np.where(there, values, 0.0)[rows][:, columns]
    draws = _resample(above, below[rows][:, columns], units[rows], resamples, seed)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(outcomes))


def crossed_distance(parts: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Mean over users of a distance that is a mean over pairs of prompts, such as CMMD.

    Users and prompts are resampled as by ``crossed_estimate``. A resample repeats prompts, which
    biases such a distance upwards: the interval is the reverse percentile one about the value, with
    that bias removed (as ``pipeline.evaluate.distances.cmmd_estimate``'s).

    Args:
        parts: (users, prompts, prompts), what each pair of prompts adds.

    Returns:
        ``n`` is the number of users times that of prompts.

    Raises:
        ValueError: no part, or one that is not finite.
    """
    if not parts.size or not np.isfinite(parts).all():
        raise ValueError(f"a distance needs finite parts, got {parts.shape} of them or others")
    users, prompts, _ = parts.shape
    step = max(1, CHUNK // max(users, prompts))
    counts = (_draw_counts(n, resamples, step, seed, k) for k, n in enumerate((users, prompts)))
    draws = []
    for of_user, of_prompt in zip(*counts, strict=True):
        shares = of_prompt / prompts
        of_each = np.einsum("bp,upq,bq->bu", shares, parts, shares, optimize=True)
        draws.append((of_user * of_each).sum(1) / users)
    return unbiased(float(parts.mean()), np.concatenate(draws), users * prompts)


def _check(outcomes: np.ndarray, below: np.ndarray, bounded: bool) -> None:
    if not len(outcomes) or np.isinf(outcomes).any():
        raise ValueError(f"a mean needs finite outcomes, got {len(outcomes)}, infinite or none")
    if not np.isfinite(below).all() or below.sum() <= 0:
        raise ValueError(f"a ratio needs a finite sum above 0 to divide by, got {below.sum():g}")
    if bounded and not np.isin(outcomes, (0.0, 1.0)).all():
        raise ValueError("bounded outcomes are 0 or 1, got others")


def _resample(
    above: np.ndarray, below: np.ndarray, units: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Ratio of the two sums in each resample that has something to divide by."""
    known, units = np.unique(units, return_inverse=True)
    units = units.reshape(len(above), -1)  # (rows, k) positions among the known ones
    step = max(1, CHUNK // max(len(known), *above.shape))
    # a stream of their own, so that prompts are resampled alike however many users there are
    users = _draw_counts(len(known), resamples, step, seed, 0)
    prompts = _draw_counts(above.shape[1], resamples, step, seed, 1)
    ratios = []
    for of_user, of_prompt in zip(users, prompts, strict=True):
        of_row = of_user[:, units[:, 0]]
        for k in range(1, units.shape[1]):
            of_row = of_row * of_user[:, units[:, k]]
        top, bottom = (((of_row @ part) * of_prompt).sum(1) for part in (above, below))
        ratios.append(top[bottom > 0] / bottom[bottom > 0])
    found = np.concatenate(ratios)
    if not len(found):
        raise ValueError(f"none of {resamples} resamples holds an outcome; take more")
    return found


def _draw_counts(n: int, resamples: int, step: int, *seed: int) -> Iterator[np.ndarray]:
    """How often each of n is drawn in n draws with replacement, (up to step, n) float64."""
    rng = np.random.default_rng(seed)
    for k in range(0, resamples, step):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - k))
        yield counts.astype(np.float64)
