"""What a node of a cluster keeps for itself, and whether it is like the machine that drives."""

import hashlib
import os
import platform
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

from pipeline.cluster.order import Place
from pipeline.errors import InputError
from pipeline.storage import private_folder

HOME = "CLUSTER_HOME"  # variable of a node's environment: where it keeps what is its own
_DEFAULT_HOME = "~/.cache/pipeline-cluster"
_DISTRIBUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MISSING = "none"


@dataclass(frozen=True)
class Node:
    """A node as it sees itself."""

    host: str
    versions: Mapping[str, str]  # of Python and of libraries
    fault: str | None  # why it cannot work, in words


def work_folder(place: Place) -> Path:
    """Where workspaces lie on this node; of another checkout elsewhere."""
    return private_folder(Path(place.work) if place.work else _home(place) / "work")


def cache_folder(place: Place) -> Path:
    """DVC's cache on this node."""
    return private_folder(Path(place.cache) if place.cache else _home(place) / "cache")


def _home(place: Place) -> Path:
    own = Path(os.environ.get(HOME, _DEFAULT_HOME)).expanduser()
    return own / hashlib.sha256(place.root.encode()).hexdigest()[:12]


def direct_libraries(requirements: Path) -> list[str]:
    """Names of a requirements file's own lines, without versions."""
    lines = (line for line in requirements.read_text().splitlines() if line[:1] not in "#-")
    return [found[0] for line in lines if (found := _DISTRIBUTION.match(line))]


def look(place: Place, libraries: Collection[str], sign: str | None) -> Node:
    """What the node that this runs on has; ``sign`` is a file that a shared cache has, too."""
    return Node(platform.node(), versions_of(libraries), _fault(place, sign))


def versions_of(libraries: Collection[str]) -> dict[str, str]:
    """Versions here of Python and of libraries, ``MISSING`` for those that are not installed."""
    found = {"Python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = MISSING
    return found


def check_alike(nodes: Iterable[Node], here: Mapping[str, str]) -> None:
    """InputError when a node cannot work, or has other versions than ``here``: it names them."""
    for node in nodes:
        if node.fault:
            raise InputError(node.fault)
        other = [f"{name} {theirs} (here {here[name]})" for name, theirs in node.versions.items()
                 if theirs != here[name]]  # fmt: skip
        if other:
            raise InputError(
                f"node {node.host} has {', '.join(other)}; results would depend on where a stage "
                "runs: install requirements.txt with -c requirements.lock there"
            )


@contextmanager
def signed(cache: Path) -> Iterator[str]:
    """The name of a file that lies in the driver's cache meanwhile; InputError if none can."""
    fault = _unwritable(cache)
    if fault:
        raise InputError(fault)
    sign = cache / f".seen-{uuid4().hex}"
    sign.touch()
    try:
        yield sign.name
    finally:
        sign.unlink()


def _fault(place: Place, sign: str | None) -> str | None:
    try:
        cache = cache_folder(place)
    except OSError as error:
        return f"{place.cache or _home(place)} cannot be made on {platform.node()} ({error})"
    if fault := _unwritable(cache):
        return fault
    if sign and not (cache / sign).exists():
        return (f"DVC's cache {cache} is another folder on node {platform.node()}; share it, or "
                "name a DVC remote to go through in cluster.remote of params.yaml")  # fmt: skip
    return None


def _unwritable(cache: Path) -> str | None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return (f"DVC's cache {cache} cannot be written to on {platform.node()} "
                f"({error.strerror})")  # fmt: skip
    return None
