"""What params.yaml and every other YAML file that a user writes are made of."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import InputError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Base of every section: frozen; unknown keys are errors, and so are infinity and NaN."""

    # of every number, as NaN would pass even a field with both limits
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_watched(key: str, source: Path | str | None, *watches: Path) -> None:
    """Raise ValueError unless DVC, which looks at ``watches``, sees a local source change.

    A source that is not here, such as a hub id, is told where it is loaded; open_clip's own word
    for a local one, ``local-dir:``, is none of its path.
    """
    source = None if source is None else Path(str(source).removeprefix("local-dir:"))
    if source is None or not source.exists():
        return
    if not any(_lies_at(source).is_relative_to(_lies_at(watch)) for watch in watches):
        told = " and ".join(map(str, watches))
        raise ValueError(f"{key} {source} is not within {told}, where DVC would see it change; set "
                         "watch to it, or to a folder that holds it")  # fmt: skip


class Watched(Section):
    """A section whose ``SOURCES``, keys of it, DVC sees change through ``watch`` alone."""

    SOURCES: ClassVar[tuple[str, ...]]
    watch: Path

    @model_validator(mode="after")
    def _sources_are_watched(self) -> "Watched":
        for key in self.SOURCES:
            check_watched(key, getattr(self, key), self.watch)
        return self


def _lies_at(path: Path) -> Path:
    """Where a path lies; a linked file, as in a hub's snapshot, where the link is: DVC reads it."""
    return path.resolve() if path.is_dir() else path.parent.resolve() / path.name


Model = TypeVar("Model", bound=BaseModel)
_WORDS = {"extra_forbidden": "there is no such key; correct its name, or remove it"}
# what yaml quotes of a file, other than a single character, an escape or a token such as '<scalar>'
_QUOTED = re.compile(r"""(?<=\s)('(?![<\\])[^']{2,}'|"(?![<\\])[^"]{2,}")""")


def read_yaml(path: Path, model: type[Model], missing: str, private: bool = False) -> Model:
    """Read and check a YAML file.

    Args:
        missing: what to do when there is no such file.
        private: name keys that are none of the model's by position, for they may be unsafe text.

    Raises InputError that lists every fault with its key, and never quotes a value or a line.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no {path}; {missing}") from None
    except (yaml.YAMLError, ValueError) as error:  # a date without such a day is a ValueError
        raise InputError(f"{path} is not YAML: {_problem(error)}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold sections, got {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = dict.fromkeys(
            f"{_place(e['loc'], data, model, private) or 'top level'}: "
            f"{_WORDS.get(e['type'], e['msg'])}"
            for e in error.errors()
        )
        raise InputError(f"{path}: {'; '.join(faults)}") from None


def _problem(error: Exception) -> str:
    """What is wrong with a YAML file, and where, without the text that is wrong."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if not isinstance(error, yaml.MarkedYAMLError):
        return getattr(error, "reason", "a number or date in it is none")
    mark = error.problem_mark
    where = f"line {mark.line + 1} column {mark.column + 1}: " if mark else ""
    return where + _QUOTED.sub("'...'", error.problem or "it cannot be read")


def _place(
    keys: Sequence[object], data: Mapping[object, object], model: type[BaseModel], private: bool
) -> str:
    """The dotted keys of a fault; with ``private``, what the user named as ``entry 3``."""
    if not private:
        return ".".join(map(str, keys))
    place: list[str] = []
    entries: object = data
    for key in keys:
        if not place and key in model.model_fields:
            place.append(key)
        elif isinstance(entries, Mapping):
            known = [str(k) for k in entries]
            place.append(f"entry {known.index(str(key)) + 1}" if str(key) in known else "an entry")
        elif isinstance(key, int):
            place.append(str(key))
        entries = entries.get(key) if isinstance(entries, Mapping) else None
    return ": ".join(place)
