"""DVC's cache: whose files its objects are, by every record that is left of them.

An object is named by its content's hash. The locks and the run cache say which output it was; an
object of an older run may be in neither, and then its content tells, and its company: what a
folder's listing has beside unsafe files is as unsafe.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from pipeline.custody.kinds import LISTINGS, UNSAFE, VERDICTS, content_kind, kind_at
from pipeline.errors import InputError

Object = tuple[Path, str | None, set[str]]  # a file, its content's kind, the kinds of its outputs


def cached_objects(cache: Path, files: list[Path]) -> list[Object]:
    """The objects among a cache's files, with what is known of each.

    Evidence comes last: a purge that is killed half-way knows as much of the rest as before.
    """
    paths: dict[str, list[Path]] = defaultdict(list)  # DVC 2 had another layout, with equal names
    for path in files:
        if not _of_a_run(cache, path):
            paths[path.parent.name + path.name].append(path)
    members = {name: _members(same[0]) for name, same in paths.items() if name.endswith(".dir")}
    contents = {name: content_kind(same[0]) for name, same in paths.items() if name not in members}
    contents |= {name: LISTINGS if listed is not None else None
                 for name, listed in members.items()}  # fmt: skip
    named = _kinds_of_outputs(_records(cache, files))
    for listing, listed in members.items():
        found = {contents.get(member) for member in listed or ()}
        named[listing] |= {kind for kind in found if VERDICTS.get(kind) == UNSAFE}
        for member in listed or ():
            named[member] |= named[listing]
    order = sorted(paths, key=lambda name: (name in members, contents[name] is not None, name))
    return [(path, contents[name], named[name]) for name in order for path in paths[name]]


def _of_a_run(cache: Path, path: Path) -> bool:
    """Whether a file is of the run cache: commands, paths and hashes, no content."""
    return path.is_relative_to(cache / "runs")


def _members(listing: Path) -> list[str] | None:
    """The objects of a folder; None when the listing is damaged."""
    try:
        return [entry["md5"] for entry in json.loads(listing.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _records(cache: Path, files: list[Path]) -> Iterator[Mapping]:
    """What every known run of a stage read and wrote."""
    for lock in [*Path().glob("dvc.lock"), *Path().glob("*/dvc.lock")]:
        yield from (_read(lock).get("stages") or {}).values()
    for file in files:
        if _of_a_run(cache, file):
            yield _read(file)


def _read(path: Path) -> Mapping:
    try:
        return yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML that DVC wrote; restore or delete it") from error


def _kinds_of_outputs(records: Iterator[Mapping]) -> dict[str, set[str]]:
    named: dict[str, set[str]] = defaultdict(set)
    for record in records:
        # of stages that keep their outputs, the run cache has the readers only
        for entry in [*record.get("deps", ()), *record.get("outs", ())]:
            if (kind := kind_at(Path(entry["path"]))) and "md5" in entry:
                named[entry["md5"]].add(kind)
    return named
