"""How long stages take on other amounts of data, whole or in shards, from how long they took once.

For plans of runs that nobody has made yet; no result depends on it.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.cluster.plan import longest_chain


@dataclass(frozen=True)
class Cost:
    """Seconds of a stage: to start, whatever there is to do, and for every row."""

    start: float
    row: float = 0.0

    def of(self, rows: float) -> float:
        """Seconds for so many rows."""
        return self.start + self.row * rows


def line(few: tuple[float, float], many: tuple[float, float]) -> Cost:
    """The cost that two measurements of the same work have in common, each (rows, seconds)."""
    row = (many[1] - few[1]) / (many[0] - few[0])
    return Cost(few[1] - row * few[0], row)


def above(start: float, rows: float, seconds: float) -> Cost:
    """The cost that one measurement shows, given what a start takes; without rows all is start."""
    if not rows or seconds <= start:
        return Cost(seconds)
    return Cost(start, (seconds - start) / rows)


def deal(rows: int, shard_rows: int, workers: int) -> list[int]:
    """The rows of each worker as ``--shard i/n`` deals them: whole shards, by turns."""
    shards = [min(shard_rows, rows - first) for first in range(0, rows, shard_rows)]
    return [sum(shards[k::workers]) for k in range(min(workers, len(shards)))]


def cut(
    seconds: Mapping[str, float], before: Mapping[str, Collection[str]],
    pieces: Mapping[str, Sequence[float]], finish: Mapping[str, float],
) -> tuple[dict[str, float], dict[str, Collection[str]]]:  # fmt: skip
    """The graph with some stages in ``pieces``, of so many seconds each.

    The stage itself comes after its pieces and only finds that all is done, in ``finish`` seconds.
    """
    found: dict[str, float] = {}
    needs: dict[str, Collection[str]] = {}
    for name, whole in seconds.items():
        parts = pieces.get(name, ())
        names = [f"{name} {k}/{len(parts)}" for k in range(1, len(parts) + 1)]
        found |= dict(zip(names, parts, strict=True))
        needs |= dict.fromkeys(names, before[name])
        found[name] = finish[name] if parts else whole
        needs[name] = names or before[name]
    return found, needs


def kind_of(name: str) -> str:
    """What an instance of a stage, or a piece of one, is an instance of."""
    return name.split()[0].split("@")[0]


def bottleneck(
    seconds: Mapping[str, float], before: Mapping[str, Collection[str]], workers: int
) -> tuple[str, str, float]:
    """Why so many workers are not faster: ``chain`` or ``work``, the stage with most of it, its
    share.

    The longest chain of stages is as long with any number of workers; all the work is done by them
    together. What takes longer of the two is what a run cannot go below.
    """
    chain = longest_chain(seconds, before)
    by_chain = workers * sum(seconds[name] for name in chain) > sum(seconds.values())
    shares: Counter[str] = Counter()
    for name in chain if by_chain else seconds:
        shares[kind_of(name)] += seconds[name]
    stage, most = max(shares.items(), key=lambda item: item[1])
    return "chain" if by_chain else "work", stage, most / shares.total()
