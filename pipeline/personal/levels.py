"""Five levels of strictness, L1 to L5: clusters of users, each with one that stands for it.

A level applies its representative's vector to every prompt, as published (METHOD §2.1).
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError
from pipeline.seeds import seed_for

RESTARTS, STEPS = 10, 100  # of k-means; the best restart is kept


@dataclass(frozen=True)
class Level:
    """A cluster of users, who are named by their position among the vectors."""

    name: str
    members: tuple[int, ...]
    representative: int  # the member nearest to the centroid
    representative_bans: int  # how many categories they ban
    mean_bans: float  # over the members
    ban_shares: dict[str, float]  # category -> share of members that ban it; those of anybody


@dataclass(frozen=True)
class Levels:
    """All levels, from fewest bans to most; ``inertia`` is the sum of squared distances."""

    levels: tuple[Level, ...]
    inertia: float


def make_levels(
    vectors: np.ndarray, bans: Sequence[Collection[str]], *, count: int = 5, seed: int
) -> Levels:
    """Cluster user vectors (n, width) by k-means, in levels ordered by their mean number of bans.

    The same vectors and seed give the same levels. Raises InputError when there are fewer distinct
    vectors than levels.
    """
    points = np.asarray(vectors, np.float64)
    distinct = len(np.unique(points, axis=0))
    if distinct < count:
        raise InputError(f"{len(points)} users have {distinct} distinct vectors, too few for "
                         f"{count} levels; take more users, or fewer levels")  # fmt: skip
    sizes = np.array([len(b) for b in bans])
    distances, labels = _cluster(points, count, seed)
    clusters = [np.flatnonzero(labels == k) for k in range(count)]
    order = sorted(range(count), key=lambda k: (sizes[clusters[k]].mean(), clusters[k][0]))
    levels = [
        _describe(f"L{n}", clusters[k], distances[clusters[k], k], bans)
        for n, k in enumerate(order, 1)
    ]
    return Levels(tuple(levels), float(distances.min(axis=1).sum()))


def _cluster(points: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (n, count) to the best restart's centroids, and the nearest of each."""
    from scipy.cluster.vq import ClusterError, kmeans2

    best = None
    for restart in range(RESTARTS):
        rng = np.random.default_rng(seed_for(seed, "levels", restart))
        try:
            centroids, _ = kmeans2(points, count, STEPS, minit="++", missing="raise", rng=rng)
        except ClusterError:  # a cluster lost its last member: another start may keep them all
            continue
        distances = np.stack([np.square(points - c).sum(axis=1) for c in centroids], axis=1)
        labels = distances.argmin(axis=1)
        if len(np.unique(labels)) == count and (
            best is None or distances.min(axis=1).sum() < best[0].min(axis=1).sum()
        ):
            best = distances, labels
    if best is None:
        raise InputError(f"k-means found no {count} clusters of {len(points)} users in {RESTARTS} "
                         "starts; take fewer levels")  # fmt: skip
    return best


def _describe(
    name: str, members: np.ndarray, distances: np.ndarray, bans: Sequence[Collection[str]]
) -> Level:
    representative = int(members[distances.argmin()])  # of equally near ones the first
    own = [bans[k] for k in members]
    counts = Counter(category for banned in own for category in set(banned))
    return Level(
        name, tuple(members.tolist()), representative, len(bans[representative]),
        sum(map(len, own)) / len(own), {c: counts[c] / len(own) for c in sorted(counts)},
    )  # fmt: skip


def project(vectors: np.ndarray) -> np.ndarray:
    """Project vectors (n, width) on their two principal axes, (n, 2), for a plot.

    An axis points to where its largest component is positive, so that plots do not flip.
    ValueError where there are no two axes: for one vector, or one dimension.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    if min(centred.shape) < 2:
        raise ValueError(f"vectors of shape {centred.shape} have no two principal axes")
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    largest = np.abs(axes).argmax(axis=1)
    return centred @ (axes * np.sign(axes[[0, 1], largest])[:, None]).T
