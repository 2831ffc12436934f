"""Kills the default run again and again: ``python -m tests.durability.battery``.

Clones HEAD into a temporary folder and starts ``dvc repro`` there. At random moments, spread over
the expected time, every process of it gets SIGKILL; none may survive. ``python -m pipeline.mend``,
and the run goes on. What the last run, undisturbed, leaves must be what is committed, with no
half-written file anywhere. The status is 1 on any difference.

With ``--workers`` stages run side by side through Ray, and its workers alone are killed, each with
its stage: one run must come to the same end by itself.
"""

import argparse
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dvc.repo import Repo

from bench.default_run import results_as_committed
from pipeline.cluster.graph import Graph
from tests.durability.halves import half_written
from tests.durability.tree import Tree, run
from tests.imports import ROOT

# of dvc, and of pipeline.cluster where many run at once
_STARTED = re.compile(r"(?:Running stage '([^']+)'|^(\S+)[^:\n]*: started on )", re.MULTILINE)
_DONE = re.compile(r"^(\S+): done in", re.MULTILINE)
_TIMES = ROOT / "bench/results/default_run.json"
GUESS = 10.0  # seconds of a stage that the default run does not have
EARLY = 1.4  # times a share of the time that is left: below 2, that all kills come before the end
PRIOR = 60.0  # seconds at the pace of that last time, before this machine's own shows


def expected_seconds(clone: Path, targets: Sequence[str]) -> dict[str, float]:
    """How long every stage of a run takes, by the last time that the default run was timed."""
    rows = json.loads(_TIMES.read_text())["rows"]
    each = {row["case"]: row["ours"] / row["n"] for row in rows}
    with contextlib.chdir(clone), Repo() as repo:
        return {name: each.get(name.split("@")[0], GUESS) for name in Graph(repo, targets)}


class Battery:
    """A clone that is run and killed until it ends undisturbed."""

    def __init__(self, clone: Path, targets: Sequence[str], cluster: bool, seed: int):
        self._clone, self._targets, self._cluster = clone, targets, cluster
        self._random = random.Random(seed)
        self._log = clone.with_name("log.txt")
        self._open = expected_seconds(clone, targets)
        self._whole, self._spent = sum(self._open.values()), 0.0
        self.faults: list[str] = []

    def run(self, kills: int) -> None:
        """All of it; what is found wrong is in ``faults``, and printed as it comes."""
        print(f"{len(self._open)} stages, {self._whole:.0f} s expected", flush=True)
        killed = 0
        while killed < kills and not self.faults:
            moment = self._random.uniform(0, EARLY * self._left() / (kills - killed + 1))
            tree = self._start()
            start = time.monotonic()
            while tree.running() and time.monotonic() - start < moment:
                time.sleep(0.02)
            if not tree.kill():  # ended before its moment came
                status, log = tree.end()
                if status:
                    self.faults.append(f"a run ended by itself with {status}:\n{log[-3000:]}")
                print(f"ended before kill {killed + 1} of {kills}", flush=True)
                break
            killed += 1
            seconds = time.monotonic() - start
            self._spent += seconds
            self._tell(killed, seconds, tree)
        if not self.faults:
            self._end(self._start(), killed)

    def run_on(self, kills: int) -> None:
        """The same of one run, whose workers are killed one by one."""
        print(f"{len(self._open)} stages, {self._whole:.0f} s expected", flush=True)
        tree, killed = self._start(), 0
        while killed < kills and tree.running():
            moment = self._random.uniform(0, EARLY * self._left() / (kills - killed + 1))
            start = time.monotonic()
            while tree.running() and time.monotonic() - start < moment:
                time.sleep(0.02)
            self._spent += time.monotonic() - start
            self._progress()
            at_work = [w for name in self._open for w in tree.named(f"ray::{name}")]
            if at_work:
                worker = self._random.choice(at_work)
                name = worker.cmdline()[0]
                worker.kill()
                killed += 1
                print(f"kill {killed:3d}  after {self._spent:4.0f} s  {name}", flush=True)
        self._end(tree, killed)

    def _left(self) -> float:
        """Seconds that are left, at the pace so far."""
        left = sum(self._open.values())
        return left * (PRIOR + self._spent) / (PRIOR + self._whole - left)

    def _start(self) -> Tree:
        command = ["pipeline.cluster"] if self._cluster else ["dvc"]
        return Tree(
            self._clone, [sys.executable, "-m", *command, "repro", *self._targets], self._log
        )

    def _tell(self, number: int, seconds: float, tree: Tree) -> None:
        running = self._progress()
        self.faults += [f"kill {number}: survived: {orphan}" for orphan in tree.orphans()]
        status, mended = run(self._clone, "pipeline.mend")
        if status:
            self.faults.append(f"kill {number}: pipeline.mend ended with {status}: {mended}")
        print(f"kill {number:3d}  after {seconds:4.0f} s  {running:42s}  "
              f"{' | '.join(mended.splitlines()) or 'nothing to mend'}", flush=True)  # fmt: skip

    def _progress(self) -> str:
        """Strike off what was finished; returns what was going on."""
        log = self._log.read_text(errors="replace")
        started = list(dict.fromkeys(a or b for a, b in _STARTED.findall(log)))
        going = started[-1:]
        if self._cluster:
            going = [name for name in started if name not in _DONE.findall(log)]
        for name in set(started) - set(going):
            self._open.pop(name, None)
        words = [line for line in log.splitlines() if line.strip()]
        writing = ", its lock" if words and words[-1].startswith("Updating lock file") else ""
        return (", ".join(going) or "starting") + writing

    def _end(self, tree: Tree, killed: int) -> None:
        start = time.monotonic()
        while tree.running():
            time.sleep(0.2)
        status, log = tree.end()
        print(f"undisturbed: {time.monotonic() - start:.0f} s, after {killed} kills", flush=True)
        if status:
            self.faults.append(f"the undisturbed run ended with {status}:\n{log[-3000:]}")
        self.faults += [f"survived: {orphan}" for orphan in tree.orphans()]
        if not results_as_committed(self._clone):
            self.faults.append(f"not as committed:\n{self._difference()}")
        status, stale = run(
            self._clone, "dvc", "status", "--json", *(self._targets or ["dvc.yaml"])
        )
        if status or json.loads(stale):
            self.faults.append(f"dvc status is not clean: {stale}")
        self.faults += half_written(self._clone)

    def _difference(self) -> str:
        done = subprocess.run(
            ["git", "diff", "--unified=1", "--", "dvc.lock", "metrics", "plots"],
            cwd=self._clone, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout[:3000]


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.durability.battery", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--targets", nargs="+", default=[], help="as of dvc repro (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--cluster", action="store_true", help="stages side by side, through Ray")
    parser.add_argument("--workers", action="store_true", help="kill its workers only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary).resolve() / "repo"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        battery = Battery(clone, args.targets, args.cluster or args.workers, args.seed)
        (battery.run_on if args.workers else battery.run)(args.kills)
    for fault in battery.faults:
        print(f"FAULT: {fault}")
    print("as committed, nothing half-written, no orphans" if not battery.faults else
          f"{len(battery.faults)} faults")  # fmt: skip
    sys.exit(bool(battery.faults))


if __name__ == "__main__":
    main()
