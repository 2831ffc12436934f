"""What a run looks like while it goes on, and the plan of one, as text."""

import functools
import math
import sys
from collections.abc import Collection, Mapping
from typing import Self

from pipeline.cluster.board import Word
from pipeline.cluster.plan import longest_chain, makespan
from pipeline.cluster.repro import Report

WORKERS = (1, 2, 4, 8, 16, 32, 64)


class Watch:
    """A table of what is running on a terminal; a line per start and end where there is none."""

    def __init__(
        self, before: Mapping[str, Collection[str]], expected: Mapping[str, float],
        cpus: float, sizes: Mapping[str, float],
    ):  # fmt: skip
        """``cpus`` are those of all nodes, ``sizes`` those that each stage takes."""
        from rich.live import Live

        self._before, self._expected, self._cpus, self._sizes = before, expected, cpus, sizes
        self._live = Live(refresh_per_second=2, transient=True) if sys.stdout.isatty() else None
        self._told: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, running: Mapping[str, Word | None], report: Report) -> None:
        """Show what is running, since when and where, and what is done."""
        for label, word in running.items():
            if word:
                self._tell(label, f"started on {word.node}")
        for made in (report.shards, report.ran):
            for label, outcome in made.items():
                self._tell(label, f"done in {outcome.seconds:.0f} s on {outcome.node}")
        for name in report.failed:
            self._tell(name, "FAILED")
        if self._live:
            self._live.update(self._table(running, report))

    def _tell(self, label: str, what: str) -> None:
        if (label, what) not in self._told:
            self._told.add((label, what))
            print_line = self._live.console.print if self._live else functools.partial(
                print, flush=True
            )  # fmt: skip
            print_line(f"{label}: {what}")

    def _table(self, running: Mapping[str, Word | None], report: Report):
        from rich.table import Table

        up = len(report.done)
        table = Table(title=f"{up} of {len(self._expected)} stages up to date, "
                            f"about {span(self.left(running, report))} to go")  # fmt: skip
        for column in ("stage", "where", "since", "expected", "its last word"):
            table.add_column(column, no_wrap=True)
        for label, word in running.items():
            # what no worker has begun waits for a free one
            where, last, since = word or ("waits", "", 0.0)
            table.add_row(label, where, span(since), span(self._expected[stage_of(label)]), last)
        return table

    def left(self, running: Mapping[str, Word | None], report: Report) -> float:
        """Seconds until all is done, if stages take as long as they did before."""
        seconds = {n: s for n, s in self._expected.items() if n not in report.done | report.lost}
        begun: dict[str, float] = {}
        for label, word in running.items():  # of a stage's shards the last begun counts
            begun[stage_of(label)] = min(begun.get(stage_of(label), math.inf), word.seconds if word
                                         else 0.0)  # fmt: skip
        for name in begun.keys() & seconds.keys():
            seconds[name] = max(0.0, seconds[name] - begun[name])
        return makespan(seconds, self._before, self._cpus, self._sizes)


def stage_of(label: str) -> str:
    """The stage of a label, which a shard's number may follow."""
    name, _, shard = label.rpartition(":")
    return name if shard[:1].isdecimal() else label


def span(seconds: float) -> str:
    """Seconds as m:ss, from an hour on h:mm:ss."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def show_plan(
    stages: Mapping[str, float], before: Mapping[str, Collection[str]], guessed: Collection[str]
) -> str:
    """What would run, in which order, and how long it takes with 1, 2, 4, ... workers."""
    if not stages:
        return "Everything is up to date."
    lines = ["seconds  stage"]
    lines += [f"{s:7.0f}{'?' if n in guessed else ' '} {n}" for n, s in stages.items()]
    if guessed:
        lines.append(f"? {len(guessed)} never ran here: taken for as long as the others on average")
    chain = longest_chain(stages, before)
    lines += ["", "workers  seconds  times as fast"]
    alone = makespan(stages, before, 1)
    for workers in WORKERS:
        whole = makespan(stages, before, workers)
        lines.append(f"{workers:7d}  {whole:7.0f}  {alone / whole:.1f}")
    least = sum(stages[name] for name in chain)
    lines.append(f"no number of workers makes it shorter than {least:.0f} s: {' -> '.join(chain)}")
    lines.append("At most: a stage whose inputs come out as they were is left out.")
    return "\n".join(lines)
