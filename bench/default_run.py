"""Times the default run: ``python -m bench.default_run`` from a clean checkout.

Clones HEAD into a folder, runs ``dvc repro`` there with nothing cached, then again with
nothing to do; with ``--cluster`` then ``python -m pipeline.cluster repro`` in another clone, whose
naive side is ``dvc repro``. Prints seconds per stage, peak memory of the process tree, and whether
dvc.lock and metrics came out as committed, but for the report, which names its time and revision;
writes ``bench/results/default_run.json``.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import psutil
import yaml

from bench.table import publish, row

SERIAL = ["dvc", "repro"]
_CLUSTER = [sys.executable, "-m", "pipeline.cluster", "repro"]
_RUNNING = re.compile(r"Running stage '([^']+)'")


class Watcher(threading.Thread):
    """Samples a process: ``peak`` is the resident bytes of it and its children together.

    ``own_seconds`` is the CPU time of the process alone.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self.peak = 0
        self.own_seconds = 0.0

    def run(self) -> None:
        while self._root.is_running():
            try:
                family = [self._root, *self._root.children(recursive=True)]
                self.peak = max(self.peak, sum(p.memory_info().rss for p in family))
                spent = self._root.cpu_times()
                self.own_seconds = spent.user + spent.system
            except psutil.Error:
                pass  # a process ended between listing and reading
            time.sleep(0.2)


def run_pipeline(
    folder: Path, command: Sequence[str] = SERIAL
) -> tuple[dict[str, list[float]], float, Watcher]:
    """Run in a folder: seconds of each instance by stage if serial, in all, and what was seen."""
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watcher = Watcher(process.pid)
    watcher.start()
    seconds: dict[str, list[float]] = defaultdict(list)
    running, since, tail = None, start, []
    for line in process.stdout:
        tail = [*tail[-20:], line]
        found = _RUNNING.search(line)
        if found:
            now = time.monotonic()
            if running:
                seconds[running].append(now - since)
            running, since = found.group(1).split("@")[0], now
    now = time.monotonic()
    if running:
        seconds[running].append(now - since)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed:\n" + "".join(tail))
    return seconds, now - start, watcher


def results_as_committed(clone: Path) -> bool:
    """Whether the run's metrics and lock are those in git, but for the report, which names both."""
    changed = subprocess.run(["git", "diff", "--quiet", "--", "metrics", "plots"], cwd=clone)
    committed = subprocess.run(["git", "show", "HEAD:dvc.lock"], cwd=clone, capture_output=True)
    here = (clone / "dvc.lock").read_text()
    locks = [yaml.safe_load(text)["stages"] for text in (committed.stdout, here)]
    for stages in locks:
        del stages["report"]
    return not changed.returncode and locks[0] == locks[1]


def clone_into(folder: Path) -> Path:
    """A fresh clone of HEAD."""
    subprocess.run(["git", "clone", "--quiet", ".", str(folder)], check=True)
    return folder


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="a new folder for the clone, which then stays")
    parser.add_argument("--cluster", action="store_true", help="also with stages side by side")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        clone = clone_into(args.keep or Path(temporary) / "repo")
        seconds, total, watcher = run_pipeline(clone)
        _, again, _ = run_pipeline(clone)
        same, rows = {"results_as_committed": results_as_committed(clone)}, []
        if args.cluster:
            other = clone_into(Path(temporary) / "side_by_side")
            _, together, seen = run_pipeline(other, _CLUSTER)
            same["side_by_side_as_committed"] = results_as_committed(other)
            rows = [row("all, side by side", together, total, "s", 1),
                    row("peak memory, side by side", seen.peak / 2**30, watcher.peak / 2**30,
                        "GiB", 1)]  # fmt: skip
    cases = {stage: sum(s) for stage, s in seconds.items()}
    cases |= {"all": total, "of it dvc's own CPU time": watcher.own_seconds}
    cases |= {"second run, nothing to do": again}
    serial = [row(case, v, None, "s", len(seconds.get(case, [0]))) for case, v in cases.items()]
    rows = [*serial, row("peak memory", watcher.peak / 2**30, None, "GiB", 1), *rows]
    publish("default_run", rows, **same)
    for name, yes in same.items():
        print(f"{name.replace('_', ' ')}: {'yes' if yes else 'no'}")


if __name__ == "__main__":
    main()
