"""What the driver of a run and its workers tell each other: plain values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Order:
    """A stage to be run, and what it reads."""

    name: str  # as DVC addresses it
    inputs: Mapping[str, Mapping[str, Any]]  # entries of dvc.lock of the stages that made them
    files: Mapping[str, bytes]  # inputs that are in git rather than in the cache
    own: Sequence[str]  # paths that no stage makes
    before: Mapping[str, Any] | None  # the stage's entry so far, if it has one


@dataclass(frozen=True)
class Place:
    """Where a worker finds what all stages share, and where it works."""

    code: str | None  # a copy of what git knows of the checkout; None: Ray unpacks one
    root: str  # the checkout itself
    cache: str  # DVC's
    work: str  # folder of workspaces
    environment: Mapping[str, str | None]  # as `dvc repro` would have it; None: not set


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    entry: Mapping[str, Any]  # for dvc.lock
    files: Mapping[str, bytes]  # outputs that are not in the cache
    log: str
    seconds: float
    node: str
    cached: bool  # made before, so that the seconds are not those of the stage


class StageFailed(Exception):
    """A stage ended with another status than 0; its text says so, with the end of the log."""
