"""Run the DVC graph with stages side by side: ``python -m pipeline.cluster repro [TARGET ...]``.

Does what ``dvc repro`` does, with the same dvc.lock at the end. Every stage works in a folder of
its own; what it makes comes back through DVC's cache. Without ``--address`` a Ray on this machine
is started and stopped.
"""

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pipeline.artifacts import CLUSTER
from pipeline.cli import run_command
from pipeline.cluster.connect import Needs, check_commands, check_needs, check_nodes, connect
from pipeline.cluster.exchange import plain
from pipeline.cluster.graph import Graph
from pipeline.cluster.node import signed
from pipeline.cluster.order import Outcome, Place
from pipeline.cluster.repro import Report, repro
from pipeline.cluster.show import Watch, show_plan
from pipeline.cluster.workspace import copy_code
from pipeline.errors import InputError
from pipeline.hold import held
from pipeline.mend import mend
from pipeline.params import load_params
from pipeline.storage import private_folder, write_text
from pipeline.times import as_file, record_seconds, recorded_seconds

GUESS = 10.0  # seconds of a stage when none has ever run here


def main() -> None:
    """Parse the command line and run; status 1 when a stage failed."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.cluster", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("repro", help="bring stages up to date, side by side")
    run.add_argument("targets", nargs="*", metavar="TARGET", help="as of dvc repro (default: all)")
    run.add_argument("--workers", type=int, metavar="N",
                     help="CPUs of the Ray on this machine (default: all)")  # fmt: skip
    run.add_argument("--address", help="of a Ray cluster, such as ray://head:10001 or auto "
                     "(default: RAY_ADDRESS, or a Ray of its own)")  # fmt: skip
    run.add_argument("--dashboard", action="store_true",
                     help="print the address of Ray's dashboard")  # fmt: skip
    run.add_argument("--plan", action="store_true",
                     help="only print what would run, and how long it takes")  # fmt: skip
    args = parser.parse_args()
    if args.workers is not None and args.workers < 1:
        parser.error("--workers must be at least 1")
    run_command("cluster", lambda: _repro(args))


def _repro(args: argparse.Namespace) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    for line in mend():
        print(line)
    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        with Repo() as repo, held(repo, " ".join(sys.argv)):
            cluster = load_params().cluster
            graph = Graph(repo, args.targets, None if args.plan else cluster.remote)
            if args.plan:
                _print_plan(graph)
            else:
                remote = plain(repo.config["remote"][cluster.remote]) if cluster.remote else None
                needs = {name: Needs(**cluster.needs(name)) for name in graph}
                _run(graph, Path(repo.cache.local_cache_dir), remote, needs, args)
    except DvcException as error:
        raise InputError(f"dvc: {error}") from None


def _print_plan(graph: Graph) -> None:
    stale: list[str] = []
    for name in graph:
        if graph.before[name] & set(stale) or graph.changed(name):
            stale.append(name)
    seconds, guessed = _expected(stale)
    print(show_plan(seconds, graph.before, guessed))


def _run(
    graph: Graph,
    cache: Path,
    remote: Mapping[str, Any] | None,
    needs: Mapping[str, Needs],
    args: argparse.Namespace,
) -> None:
    root, address = Path.cwd(), args.address or os.environ.get("RAY_ADDRESS")
    check_commands(needs, graph.commands)
    code, work = (private_folder(root / CLUSTER / part) for part in ("code", "work"))
    shutil.rmtree(code)
    copy_code(root, code)
    place = Place(
        code=None if address else str(code), root=str(root),
        cache=None if remote else str(cache), work=None if remote else str(work),
        environment={"PYTHONPATH": os.environ.get("PYTHONPATH")}, remote=remote,
    )  # fmt: skip
    expected, _ = _expected(list(graph))
    try:
        nodes = connect(address, args.workers, code, args.dashboard)
        check_needs(needs, nodes)
        with signed(cache) as sign:
            check_nodes(place, None if remote else sign)
        cpus = sum(node.get("CPU", 0) for node in nodes)
        sizes = {name: asked.cpus for name, asked in needs.items()}
        with Watch(graph.before, expected, cpus, sizes) as watch:
            report = repro(graph, place, needs, expected, watch, _keep)
    finally:
        shutil.rmtree(code)
    _end(report)


def _keep(name: str, log: str, outcome: Outcome | None) -> None:
    """A stage's log, and its time if it did not fail."""
    write_text(private_folder(CLUSTER / "logs") / f"{as_file(name)}.txt", log)
    if outcome:
        record_seconds(name, outcome.seconds)


def _end(report: Report) -> None:
    """Say what was done; InputError when a stage failed."""
    print(f"{len(report.ran)} stages ran, {len(report.restored)} came from DVC's cache, "
          f"{len(report.unchanged)} were up to date")  # fmt: skip
    for name, log in report.failed.items():
        print(f"\n{name} {log}", file=sys.stderr)
    if report.failed:
        left = f"; left out because of it: {', '.join(report.left_out)}" if report.left_out else ""
        raise InputError(f"{', '.join(report.failed)} failed{left}. The same command goes on from "
                         "here")  # fmt: skip


def _expected(stages: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Seconds by stage from their last run here, and which never ran: they get the average."""
    known = {name: recorded_seconds(name) for name in stages}
    measured = [s for s in known.values() if s is not None]
    guess = mean(measured) if measured else GUESS
    return (
        {name: guess if s is None else s for name, s in known.items()},
        [name for name, s in known.items() if s is None],
    )


if __name__ == "__main__":
    main()
