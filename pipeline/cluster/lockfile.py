"""Writes dvc.lock as DVC does, but only what is new: DVC parses and writes all of it each time.

That is seconds for a file of ninety stages, in which nothing else is started. Here an entry becomes
text once, by DVC's own writer, and the file is these texts one after another.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.storage import write_text

_STAGES = "stages"


class LockFile:
    """A lock file that nobody else writes to meanwhile; DVC's lock sees to that."""

    def __init__(self, path: Path):
        from dvc.utils.serialize import load_yaml

        self._path = path
        self._whole: dict[str, Any] = (load_yaml(path) if path.exists() else None) or {
            "schema": "2.0"
        }
        self._entries: dict[str, Mapping[str, Any]] = self._whole.setdefault(_STAGES, {})
        self._texts: dict[str, str] = {}

    def put(self, name: str, entry: Mapping[str, Any]) -> None:
        """Take a stage's entry, in the place of the one before."""
        if self._entries.get(name) != entry:
            self._entries[name] = entry
            self._texts.pop(name, None)

    def write(self) -> None:
        """Write all entries, at once or not at all."""
        from dvc.utils.serialize import dumps_yaml

        text = ""
        for key, value in self._whole.items():
            if key == _STAGES and value:
                text += f"{_STAGES}:\n" + "".join(map(self._text, value))
            else:
                text += dumps_yaml({key: value})
        write_text(self._path, text)

    def _text(self, name: str) -> str:
        from dvc.utils.serialize import dumps_yaml

        if name not in self._texts:
            # as deep as it lies in the file, since long lines are broken by their depth
            whole = dumps_yaml({_STAGES: {name: self._entries[name]}})
            self._texts[name] = whole.removeprefix(f"{_STAGES}:\n")
        return self._texts[name]
