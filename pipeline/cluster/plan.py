"""How long a run would take on so many workers, from how long its stages took before."""

import heapq
from collections.abc import Collection, Mapping, Sequence


def makespan(
    seconds: Mapping[str, float], before: Mapping[str, Collection[str]], workers: int
) -> float:
    """Seconds until all stages are done, when every free worker takes the next ready stage.

    ``seconds`` are the stages in the order of ``dvc repro``, which breaks ties; what ``before``
    names beside them is done already. This is Graham's list scheduling with the longest way to the
    end first, at most (2 - 1/workers) times the shortest possible.
    """
    urgency = ways_to_the_end(seconds, before)
    place = {name: k for k, name in enumerate(seconds)}
    open_ = {name: set(before[name]) & seconds.keys() for name in seconds}
    ready = [(-urgency[n], place[n], n) for n, needs in open_.items() if not needs]
    heapq.heapify(ready)
    running: list[tuple[float, int, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, k, name = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[name], k, name))
        now, _, done = heapq.heappop(running)
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
