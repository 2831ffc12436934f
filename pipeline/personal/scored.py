"""What judges see in the pictures that people are shown, and who is shown which."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import InputError
from pipeline.evaluate.judged import Judged, load_judged
from pipeline.personal.shown import METHODS, PSA, audience_key
from pipeline.personal.space import Boundary
from pipeline.scoring.benchmarks import judge_folder
from pipeline.scoring.panel import Panel
from pipeline.storage import private_folder, remove_except


def judge_methods(images: Path, scores: Path, panel: Panel) -> int:
    """Score ``<method>/<key>`` folders of pictures; returns how many were looked at.

    Raises InputError when there are none.
    """
    folders = sorted(path for path in images.glob("*/*") if path.is_dir())
    if not folders:
        raise InputError(f"{images} holds no pictures; run `dvc repro sample_psa`")
    methods = {folder.parent.name for folder in folders}
    remove_except(private_folder(scores), [scores / method for method in methods])
    for method in methods:
        here = [scores / method / f.name for f in folders if f.parent.name == method]
        remove_except(private_folder(scores / method), here)
    return sum(judge_folder(f, scores / f.relative_to(images), panel) for f in folders)


@dataclass(frozen=True)
class Shown:
    """What one method shows everybody, from the scores of its pictures."""

    folder: Path  # of the scores, by key
    method: str
    by_bans: bool

    @cached_property
    def _loaded(self) -> dict[str, Judged]:
        return {}

    def to(self, boundary: Boundary) -> Judged:
        """What somebody is shown, the same object for equal conditions.

        InputError when nothing was drawn for them.
        """
        key = audience_key(boundary, self.by_bans)
        if key not in self._loaded:
            self._loaded[key] = load_judged(self.folder / key, f"{self.method}/{key}")
        return self._loaded[key]


def shown_by_methods(folder: Path, gated: bool) -> dict[str, Shown]:
    """Every personal method's pictures, from their scores; ``gated`` says what the adapter is."""
    return {name: Shown(folder / name, name, gated or name != PSA) for name in METHODS}
