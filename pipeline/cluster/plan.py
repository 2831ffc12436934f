"""How long a run would take on so many workers, from how long its stages took before."""

import heapq
from collections.abc import Collection, Mapping, Sequence


def makespan(
    seconds: Mapping[str, float], before: Mapping[str, Collection[str]], workers: float,
    sizes: Mapping[str, float] | None = None,
) -> float:  # fmt: skip
    """Seconds until all stages are done, when every free worker takes the next ready stage.

    ``seconds`` are the stages in the order of ``dvc repro``, which breaks ties; what ``before``
    names beside them is done already. This is Graham's list scheduling with the longest way to the
    end first, at most (2 - 1/workers) times the shortest possible. With ``sizes`` a stage takes so
    much of ``workers``, at least one stage at a time, and what fits goes before what does not.
    """
    takes = {name: 1.0 if sizes is None else sizes[name] for name in seconds}
    urgency = ways_to_the_end(seconds, before)
    place = {name: k for k, name in enumerate(seconds)}
    open_ = {name: set(before[name]) & seconds.keys() for name in seconds}
    ready = [(-urgency[n], place[n], n) for n, needs in open_.items() if not needs]
    heapq.heapify(ready)
    running: list[tuple[float, int, str]] = []
    now, free, least = 0.0, float(workers), min(takes.values(), default=0.0)
    while ready or running:
        too_large = []
        while ready and (free >= least or not running):
            entry = heapq.heappop(ready)
            _, k, name = entry
            if takes[name] > free and running:
                too_large.append(entry)
                continue
            free -= takes[name]
            heapq.heappush(running, (now + seconds[name], k, name))
        for entry in too_large:
            heapq.heappush(ready, entry)
        now, _, done = heapq.heappop(running)
        free += takes[done]
        for name, needs in open_.items():
            if done in needs:
                needs.remove(done)
                if not needs:
                    heapq.heappush(ready, (-urgency[name], place[name], name))
    return now


def ways_to_the_end(
    seconds: Mapping[str, float], before: Mapping[str, Collection[str]]
) -> dict[str, float]:
    """Of every stage the longest chain of seconds that starts with it; the largest is the bound."""
    after: dict[str, list[str]] = {name: [] for name in seconds}
    for name in seconds:
        for other in before[name]:
            if other in after:
                after[other].append(name)
    found: dict[str, float] = {}
    for name in reversed(list(seconds)):  # dvc's order: what comes after is known already
        found[name] = seconds[name] + max((found[n] for n in after[name]), default=0.0)
    return found


def longest_chain(seconds: Mapping[str, float], before: Mapping[str, Collection[str]]) -> list[str]:
    """The stages that no number of workers makes shorter, first to last."""
    ways = ways_to_the_end(seconds, before)
    chain: list[str] = []
    following: Sequence[str] = list(seconds)
    while following:
        name = max(following, key=ways.__getitem__)
        chain.append(name)
        following = [n for n in seconds if name in before[n]]
    return chain
