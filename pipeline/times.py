"""How long stages took when they last ran: for plans of the next run; no result depends on it."""

from pathlib import Path

from pipeline.artifacts import STAGE_TIMES
from pipeline.storage import read_json, write_json


def record_seconds(stage: str, seconds: float, root: Path = Path()) -> None:
    """Keep a stage's time, by the name that DVC addresses it with."""
    write_json(root / STAGE_TIMES / f"{stage.replace('/', '+')}.json", {"seconds": seconds})


def recorded_seconds(stage: str, root: Path = Path()) -> float | None:
    """Its last time; None when it never ran here."""
    file = root / STAGE_TIMES / f"{stage.replace('/', '+')}.json"
    return read_json(file)["seconds"] if file.exists() else None
