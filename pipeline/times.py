"""How long stages took when they last ran: for plans of the next run, and for the report to show.

No result depends on it.
"""

import logging
from pathlib import Path

from pipeline.artifacts import STAGE_TIMES
from pipeline.errors import first_line
from pipeline.storage import read_json, write_json

log = logging.getLogger(__name__)


def as_file(stage: str) -> str:
    """A stage's name, as DVC addresses it, as that of a file."""
    return stage.replace("/", "+")


def record_seconds(stage: str, seconds: float) -> None:
    """Keep a stage's time; where that cannot be written it is said, for the stage is finished."""
    try:
        write_json(_file(stage), {"seconds": seconds})
    except OSError as error:
        log.warning("the time of %s is not kept: %s", stage, first_line(error))


def recorded_seconds(stage: str) -> float | None:
    """Its last time; None when it never ran here."""
    return read_json(_file(stage))["seconds"] if _file(stage).exists() else None


def _file(stage: str) -> Path:
    return STAGE_TIMES / f"{as_file(stage)}.json"
