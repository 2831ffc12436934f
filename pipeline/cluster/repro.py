"""Runs every stage that is ready, as a Ray task in a workspace of its own."""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.cluster.graph import Graph
from pipeline.cluster.order import Outcome, Place, StageFailed
from pipeline.cluster.plan import ways_to_the_end
from pipeline.cluster.workspace import run_order
from pipeline.errors import InputError, first_line

RETRIES = 3  # of a stage whose worker or node was lost
WRITE_EVERY = 10.0  # seconds between writes of dvc.lock, each of which takes seconds
_LOOK_EVERY = 0.3
_HERE = Path(__file__).parents[2]  # where workers import this from
_PATIENCE = 5.0  # seconds; Ray itself tries for minutes


@dataclass(frozen=True)
class Needs:
    """What a stage asks of a node."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0  # GiB


@dataclass
class Report:
    """What a run did."""

    ran: dict[str, Outcome] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # with the end of the log
    left_out: list[str] = field(default_factory=list)  # because of what failed

    @property
    def done(self) -> set[str]:
        """The stages that are up to date."""
        return self.ran.keys() | self.unchanged

    @property
    def lost(self) -> set[str]:
        """The stages that are not, and will not be."""
        return self.failed.keys() | self.left_out


def repro(
    graph: Graph,
    place: Place,
    needs: Mapping[str, Needs],
    expected: Mapping[str, float],
    watch: Callable[[Mapping[str, float], Report], None],
) -> Report:
    """Bring all stages of a graph up to date; Ray must be initialised.

    Among ready stages the one with the longest way to the end goes first, by ``expected`` seconds.
    ``watch`` is told several times a second what is running, since when, and what was done. A
    failed stage leaves out what needs it; the others go on.
    """
    import ray

    run = _Run(graph, place, needs, expected)
    written = time.monotonic()
    try:
        while run.waiting or run.running:
            run.start_what_is_ready()
            watch({name: run.since[name] for name in run.running.values()}, run.report)
            if run.running:
                for future in ray.wait(list(run.running), timeout=_LOOK_EVERY)[0]:
                    run.collect(future)
            if time.monotonic() - written > WRITE_EVERY:
                graph.write_lock()
                written = time.monotonic()
    finally:
        graph.write_lock()
        for future in run.running:
            ray.cancel(future, force=True)
    watch({}, run.report)
    return run.report


class _Run:
    def __init__(
        self,
        graph: Graph,
        place: Place,
        needs: Mapping[str, Needs],
        expected: Mapping[str, float],
    ):
        import ray

        self._graph, self._place, self._needs = graph, place, needs
        urgency = ways_to_the_end({name: expected[name] for name in graph}, graph.before)
        self.waiting = sorted(graph, key=lambda name: -urgency[name])
        self.running: dict[ray.ObjectRef, str] = {}
        self.since: dict[str, float] = {}
        self.report = Report()
        self._task = ray.remote(max_retries=RETRIES)(run_order)

    def start_what_is_ready(self) -> None:
        """Hand to Ray what has to run; what has not may make others ready."""
        found = True
        while found:
            found = False
            for name in list(self.waiting):
                before = self._graph.before[name]
                if before & self.report.lost:
                    self.report.left_out.append(name)
                elif not before <= self.report.done:
                    continue
                elif self._graph.changed(name):
                    self._start(name)
                else:
                    self.report.unchanged.append(name)
                self.waiting.remove(name)
                found = True

    def _start(self, name: str) -> None:
        asked = self._needs[name]
        task = self._task.options(
            name=name, num_cpus=asked.cpus, num_gpus=asked.gpus, memory=int(asked.memory * 2**30)
        )
        self.running[task.remote(self._graph.order(name), self._place)] = name
        self.since[name] = time.monotonic()

    def collect(self, future: object) -> None:
        """Take what a task has made, or note why it has not."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        name = self.running.pop(future)
        try:
            outcome = ray.get(future)
        except RayTaskError as error:
            if not isinstance(error.cause, StageFailed | InputError):
                raise
            self.report.failed[name] = str(error.cause)
        except RayError as error:  # its worker was lost again and again
            self.report.failed[name] = f"was lost: {first_line(error)}"
        else:
            self._graph.take(name, outcome)
            self.report.ran[name] = outcome


def check_needs(needs: Mapping[str, Needs], nodes: list[Mapping[str, float]]) -> None:
    """InputError when a stage asks for more than any node has."""
    for name, asked in needs.items():
        wanted = {"CPU": asked.cpus, "GPU": asked.gpus, "memory": asked.memory * 2**30}
        if not any(all(node.get(r, 0) >= n for r, n in wanted.items()) for node in nodes):
            raise InputError(
                f"{name} asks for {asked.cpus:g} CPUs, {asked.gpus:g} GPUs and "
                f"{asked.memory:g} GiB (cluster.resources in params.yaml), which no node has"
            )


def connect(address: str | None, workers: int | None, code: Path) -> list[Mapping[str, float]]:
    """Start a Ray on this machine, or join the cluster at an address, which gets the code.

    Returns what every node has, for ``check_needs``. Raises InputError when Ray is missing or the
    cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "pipeline.cluster needs Ray: pip install -r requirements-cluster.txt"
        ) from None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # and remark on it
    if address:
        _check_address(address)
        where = {"address": address, "runtime_env": {"working_dir": str(code)}}
    else:
        where = {"address": "local", "num_cpus": workers, "include_dashboard": False,
                 "runtime_env": {"env_vars": {"PYTHONPATH": str(_HERE)}}}  # fmt: skip
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster can be joined at {address}: {first_line(error)}"
        ) from None
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _check_address(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # such as "auto", which Ray looks up on this machine
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise InputError(f"nothing answers at {address} ({first_line(error)}); is the Ray cluster "
                         "there?") from None  # fmt: skip
