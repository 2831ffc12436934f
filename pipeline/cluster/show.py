"""What a run looks like while it goes on, and the plan of one, as text."""

import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

from pipeline.cluster.plan import longest_chain, makespan
from pipeline.cluster.repro import Report
from pipeline.cluster.workspace import LOG, last_line
from pipeline.times import as_file

WORKERS = (1, 2, 4, 8, 16, 32, 64)


class Watch:
    """A table of what is running on a terminal; a line per start and end where there is none."""

    def __init__(self, stages: int, expected: Mapping[str, float], work: Path):
        from rich.live import Live

        self._stages, self._expected, self._work = stages, expected, work
        self._live = Live(refresh_per_second=2, transient=True) if sys.stdout.isatty() else None
        self._told: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, running: Mapping[str, float], report: Report) -> None:
        """Show what is running, since when, and what is done."""
        for name in running:
            self._tell(name, "handed to Ray")
        for name, outcome in report.ran.items():
            self._tell(name, f"done in {outcome.seconds:.0f} s on {outcome.node}")
        for name in report.failed:
            self._tell(name, "FAILED")
        if self._live:
            self._live.update(self._table(running, report))

    def _tell(self, name: str, what: str) -> None:
        if (name, what) not in self._told:
            self._told.add((name, what))
            (self._live.console.print if self._live else print)(f"{name}: {what}")

    def _table(self, running: Mapping[str, float], report: Report):
        from rich.table import Table

        done = len(report.ran) + len(report.unchanged)
        table = Table(title=f"{done} of {self._stages} stages up to date, {len(running)} running")
        for column in ("stage", "seconds", "expected", "its last word"):
            table.add_column(column, no_wrap=True)
        for name, since in running.items():
            table.add_row(name, f"{time.monotonic() - since:.0f}", f"{self._expected[name]:.0f}",
                          last_line(self._work / as_file(name) / LOG))  # fmt: skip
        return table


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
