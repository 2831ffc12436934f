"""What a run has written so far, one file a batch of concepts, so that a killed run goes on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.records import PromptPair
from pipeline.storage import run_folder, write_json


@dataclass(frozen=True)
class Batch:
    """The pairs of some concepts, and the failures by reason on the way."""

    pairs: list[PromptPair]
    faults: dict[str, int]
    unread: dict[str, int]  # of checks, as of ``Review``


class Finished:
    """Finished batches of a run in a private folder of its own.

    ``run_id`` identifies all that shapes them; what another run left is removed.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self._folder = run_folder(folder, run_id)

    def save(self, number: int, batch: Batch) -> None:
        """Keep a batch, atomically."""
        write_json(self._path(number), asdict(batch))

    def load(self, number: int) -> Batch | None:
        """A batch kept earlier, or None; a damaged file counts as none."""
        try:
            told = json.loads(self._path(number).read_text(encoding="utf-8"))
            rows = [PromptPair(**row) for row in told["pairs"]]
            return Batch(rows, told["faults"], told["unread"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _path(self, number: int) -> Path:
        return self._folder / f"batch-{number:05d}.json"


def split_evenly(items: Sequence, size: int) -> list[Sequence]:
    """Items in runs of ``size``, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]
