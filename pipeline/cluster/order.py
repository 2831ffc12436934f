"""What the driver of a run and its workers tell each other: plain values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.times import as_file


@dataclass(frozen=True)
class Shard:
    """A worker's part of a stage: its number, from 1, and how many workers there are."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Order:
    """A stage to be run, or a shard of one, and what it reads."""

    name: str  # as DVC addresses it
    # what made them: stages, with their entries of dvc.lock, and files of `dvc add`, with None
    inputs: Mapping[str, Mapping[str, Any] | None]
    files: Mapping[str, bytes]  # inputs that are in git rather than in the cache
    own: Sequence[str]  # paths that no stage makes
    before: Mapping[str, Any] | None  # the stage's entry so far, if it has one
    threads: int = 1  # of each of its processes: their number shows in the last bits of results
    processes: int = 1  # that it trains with
    sees_gpus: bool = True  # those that Ray has given it; else none
    shard: Shard | None = None  # None: all of it
    pieces: Sequence[str] = ()  # what its shards made: hashes of folders in the cache

    @property
    def label(self) -> str:
        """What it is called in a table."""
        return f"{self.name}:{self.shard}" if self.shard else self.name

    @property
    def folder(self) -> str:
        """The name of its workspace."""
        return as_file(self.label)


@dataclass(frozen=True)
class Place:
    """Where workers find what all stages share, and where they work."""

    code: str | None  # a copy of what git knows of the checkout; None: Ray unpacks one
    root: str  # the checkout itself
    cache: str | None  # DVC's, the same folder on all nodes; None: every node has one of its own
    work: str | None  # folder of workspaces; None: every node's own
    environment: Mapping[str, str | None]  # as `dvc repro` would have it; None: not set
    remote: Mapping[str, Any] | None = None  # DVC's settings of the remote to exchange data through


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    entry: Mapping[str, Any]  # for dvc.lock
    files: Mapping[str, bytes]  # outputs that are not in the cache
    log: str
    seconds: float
    node: str


@dataclass(frozen=True)
class Piece:
    """What a shard made."""

    content: str  # hash of a folder in the cache
    log: str
    seconds: float
    node: str


class StageFailed(Exception):
    """A stage ended with another status than 0; its text says so, with the end of the log."""
