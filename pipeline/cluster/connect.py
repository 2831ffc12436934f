"""Starts a Ray or joins one, and holds its nodes against what stages need before any runs."""

import logging
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import REQUIREMENTS
from pipeline.cluster.node import Node, check_alike, direct_libraries, look, versions_of
from pipeline.cluster.order import Place
from pipeline.errors import InputError, first_line

_HERE = Path(__file__).parents[2]  # where workers import this from
_PATIENCE = 5.0  # seconds; Ray itself tries for minutes
_SHARD = re.compile(r"--shard|\bshard: ")  # an argument of a script or of a stage's main


@dataclass(frozen=True)
class Needs:
    """What a stage asks of a node, and how many share its work."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0  # GiB
    processes: int = 1  # that it trains with, on one node
    shards: int = 1  # workers that draw or judge a part each

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs, {self.gpus:g} GPUs and {self.memory:g} GiB"

    @property
    def resources(self) -> dict[str, float]:
        """The same by Ray's names."""
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory * 2**30}

    def fit_one_of(self, nodes: Iterable[Mapping[str, float]]) -> bool:
        """Whether one of the nodes has so much, when it is free."""
        return any(
            all(node.get(name, 0) >= amount for name, amount in self.resources.items())
            for node in nodes
        )

    @property
    def threads(self) -> int:
        """Of each process. Were there more threads than CPUs, they would wait for each other."""
        return max(1, int(self.cpus) // self.processes)


def check_commands(needs: Mapping[str, Needs], commands: Mapping[str, str]) -> None:
    """InputError when a stage shall be cut, or started several times, that cannot be."""
    for name, asked in needs.items():
        if asked.shards > 1 and not _takes_shards(commands[name]):
            raise InputError(f"cluster.resources gives {name} {asked.shards} shards; its command "
                             "takes no --shard")  # fmt: skip
        if asked.processes > 1 and "LAUNCH" not in commands[name]:
            raise InputError(f"cluster.resources gives {name} {asked.processes} processes; only "
                             "stages that train can have more than one")  # fmt: skip


def _takes_shards(command: str) -> bool:
    """Whether the script that a command names has such an argument."""
    modules = (word for word in command.split() if word.startswith("stages.") or ".py" in word)
    files = (Path(*m.removesuffix(".py").split(".")).with_suffix(".py") for m in modules)
    return any(file.exists() and _SHARD.search(file.read_text()) for file in files)


def check_nodes(place: Place, sign: str | None) -> None:
    """InputError when a node cannot work, or has other libraries than this machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    libraries = direct_libraries(_HERE / REQUIREMENTS)
    task = ray.remote(num_cpus=0)(look)
    asked: list[Any] = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(place, libraries, sign)
        for node in ray.nodes()
        if node["Alive"]
    ]
    nodes: list[Node] = ray.get(asked)
    check_alike(nodes, versions_of(libraries))


def living_nodes() -> list[Mapping[str, float]]:
    """What every node has, by Ray's names of resources."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_needs(needs: Mapping[str, Needs], nodes: Sequence[Mapping[str, float]]) -> None:
    """InputError when a stage asks for more than any node has."""
    for name, asked in needs.items():
        if not asked.fit_one_of(nodes):
            raise InputError(f"{name} asks for {asked} (cluster.resources in params.yaml), which "
                             "no node has")  # fmt: skip


def connect(
    address: str | None, workers: int | None, code: Path, dashboard: bool = False
) -> list[Mapping[str, float]]:
    """Start a Ray on this machine, or join the cluster at an address, which gets the code.

    Returns ``living_nodes``. Raises InputError when Ray is missing, or its dashboard if that is
    asked for, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "pipeline.cluster needs Ray: pip install -r requirements-cluster.txt"
        ) from None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # and remark on it
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # of tasks that a Ctrl-C ended
    if address:
        _check_address(address)
        where = {"address": address, "runtime_env": {"working_dir": str(code)}}
    else:
        where = {"address": "local", "num_cpus": workers, "include_dashboard": dashboard}
    try:
        with _found_here():
            context = ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster can be joined at {address}: {first_line(error)}"
        ) from None
    except Exception as error:  # Ray has no type of its own for this one
        if not dashboard:
            raise
        raise InputError(
            f"Ray's dashboard does not start ({first_line(error)}): pip install 'ray[default]'"
        ) from None
    if dashboard:
        print(f"Ray's dashboard: http://{context.dashboard_url}", flush=True)
    return living_nodes()


@contextmanager
def _found_here() -> Iterator[None]:
    """A Ray that is started within has workers that find this package, wherever they work."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(_HERE)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _check_address(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # such as "auto", which Ray looks up on this machine
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise InputError(f"nothing answers at {address} ({first_line(error)}); is the Ray cluster "
                         "there?") from None  # fmt: skip
