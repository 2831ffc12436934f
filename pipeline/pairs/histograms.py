"""Histograms as tables for ``dvc plots``: bins never move, so that two of them can be laid over."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Bins(NamedTuple):
    """Equal bins of the range of a score."""

    low: float
    high: float
    count: int


def count_scores(
    values: Mapping[tuple[str, str], Sequence[float]], bins: Mapping[str, Bins]
) -> list[dict[str, object]]:
    """How many values are in each bin, as rows ``{score, side, bin, count}``.

    Args:
        values: by (score, side).
        bins: by score; a value beyond them counts in the nearest.

    Returns:
        A row for every bin, empty ones too; ``bin`` is its lower edge.
    """
    rows = []
    for (score, side), found in values.items():
        low, high, count = bins[score]
        edges = np.linspace(low, high, count + 1)
        counts, _ = np.histogram(np.clip(found, low, high), edges)
        rows += [
            {"score": score, "side": side, "bin": float(edge), "count": int(n)}
            for edge, n in zip(edges[:-1], counts, strict=True)
        ]
    return rows
