"""How well user vectors tell users apart: the published ones hardly do (METHOD §2.5).

Their pairwise cosine was .995 on average, with 29 % of the energy in one dimension.
"""

from collections.abc import Collection, Sequence

import numpy as np


def cosine_spread(vectors: np.ndarray) -> dict[str, float]:
    """Mean, 5th (``low``) and 95th percentile (``high``) of the cosines of all pairs of rows.

    Raises ValueError for fewer than two vectors, or one of length zero.
    """
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if len(wide) < 2 or not lengths.all():
        raise ValueError(f"cosines of {len(wide)} vectors: two are needed, and none of length zero")
    unit = wide / lengths
    cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    low, high = np.quantile(cosines, [0.05, 0.95])
    return {"mean": float(cosines.mean()), "low": float(low), "high": float(high)}


def largest_dimension_share(vectors: np.ndarray) -> float:
    """Share of the sum of squares that is in the largest dimension, in [0, 1]."""
    energy = np.square(np.asarray(vectors, np.float64)).sum(axis=0)
    return float(energy.max() / energy.sum())


def ban_probe(
    train_vectors: np.ndarray, train_bans: Sequence[Collection[str]],
    test_vectors: np.ndarray, test_bans: Sequence[Collection[str]],
    categories: Sequence[str], ridge: float = 1e-3,
) -> dict[str, object]:  # fmt: skip
    """Whether a linear readout finds each category's bans in user vectors of others.

    Least squares with a bias on 0/1 targets, cut at .5. ``ridge`` is relative to the mean squared
    length of a centred training vector, so that vectors of any scale compare.

    Returns:
        ``accuracy`` and ``majority`` (always answering as most training users) by category, and
        ``mean_accuracy`` and ``mean_majority`` over them; shares of test users.
    """
    train, test = _as_targets(train_bans, categories), _as_targets(test_bans, categories)
    centre = train_vectors.mean(axis=0, dtype=np.float64)
    inputs, shares = train_vectors - centre, train.mean(axis=0)
    # Dual form, (n, n): an LLM's vectors are wider than there are users. Centring is the bias.
    kernel = inputs @ inputs.T
    damping = ridge * (np.trace(kernel) / len(kernel) or 1.0)  # 1 where all are alike
    weights = np.linalg.solve(kernel + damping * np.eye(len(kernel)), train - shares)
    found = (test_vectors - centre) @ (inputs.T @ weights) + shares >= 0.5
    accuracy = (found == test).mean(axis=0)
    majority = ((shares >= 0.5) == test).mean(axis=0)
    return {
        "accuracy": dict(zip(categories, accuracy.tolist(), strict=True)),
        "majority": dict(zip(categories, majority.tolist(), strict=True)),
        "mean_accuracy": float(accuracy.mean()), "mean_majority": float(majority.mean()),
    }  # fmt: skip


def _as_targets(bans: Sequence[Collection[str]], categories: Sequence[str]) -> np.ndarray:
    """(users, categories) of 0 and 1."""
    return np.array([[category in banned for category in categories] for banned in bans], float)
