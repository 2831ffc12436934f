"""Stages side by side against ``dvc repro``: ``python -m bench.cluster``.

A DVC project of its own, whose stages only sleep: three chains and a stage that needs them all, so
that what is measured is the scheduling. Naive is ``dvc repro`` of the same project, and the ideal
is the makespan by arithmetic, without any cost of starting, copying or writing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from bench.table import publish, row
from pipeline.artifacts import PARAMS
from pipeline.cluster.plan import makespan

CHAINS, LENGTH = 3, 3


def make_project(folder: Path, seconds: float) -> tuple[dict[str, float], dict[str, list[str]]]:
    """A project of sleeping stages; their seconds, and what each needs."""
    stages, times, before = {}, {}, {}
    for chain in range(CHAINS):
        for k in range(LENGTH):
            name, needs = f"s{chain}-{k}", [f"s{chain}-{k - 1}"] if k else []
            stages[name] = {
                "cmd": f"sleep {seconds} && mkdir -p data && echo {name} > data/{name}",
                "deps": [f"data/{n}" for n in needs] or ["params.yaml"],
                "outs": [f"data/{name}"],
            }
            times[name], before[name] = seconds, needs
    ends = [f"s{chain}-{LENGTH - 1}" for chain in range(CHAINS)]
    stages["end"] = {
        "cmd": f"sleep {seconds} && echo end > data/end", "deps": [f"data/{e}" for e in ends],
        "outs": ["data/end"],
    }  # fmt: skip
    times["end"], before["end"] = seconds, ends
    folder.mkdir()
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    params = PARAMS.read_text().replace("default: {cpus: 2", "default: {cpus: 1")
    (folder / "params.yaml").write_text(params)
    (folder / ".gitignore").write_text("/data/\n/.checkpoints/\n")
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True)
    return times, before


def timed(folder: Path, *command: str) -> float:
    """Seconds that a command takes in a project."""
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    return time.monotonic() - start


def measure(seconds: float, workers: int) -> list[dict[str, object]]:
    """The rows of one length of stages."""
    with tempfile.TemporaryDirectory() as temporary:
        times, before = make_project(Path(temporary) / "ours", seconds)
        make_project(Path(temporary) / "naive", seconds)
        naive = timed(Path(temporary) / "naive", "dvc", "repro")
        ours = timed(
            Path(temporary) / "ours", "pipeline.cluster", "repro", "--workers", str(workers)
        )
    ideal = makespan(times, before, workers)
    case = f"{len(times)} stages of {seconds:g} s, {workers} workers"
    return [row(f"{case}, against dvc repro", ours, naive, "s", 1),
            row(f"{case}, against the ideal", ours, ideal, "s", 1)]  # fmt: skip


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[20.0, 60.0],
                        help="lengths of a stage; what a run costs besides is the same for "
                        "all")  # fmt: skip
    parser.add_argument("--workers", type=int, default=3)
    args = parser.parse_args()
    publish("cluster", [r for s in args.seconds for r in measure(s, args.workers)])


if __name__ == "__main__":
    main()
