"""Looks for half-written files: what a killed run must not leave when it was run to its end."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from PIL import Image
from safetensors import safe_open

from pipeline.drawing.images import UNFINISHED

_UNFINISHED = re.compile(r".*\.(partial|tmp)|" + re.escape(UNFINISHED))
_NOT_MADE = {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache"}
_END_OF_PNG = b"IEND\xaeB`\x82"
_STAYS = re.compile(r"\.checkpoints/cluster/(logs|locks)/")  # what stages said; files to be locked
_OBJECT = re.compile(r"\.dvc/cache/files/md5/(..)/(.{30})(\.dir)?")


def half_written(root: Path) -> list[str]:
    """Files below a folder that are cut off, unfinished, or not what DVC's cache calls them."""
    found = []
    for path in _files(root):
        inside = path.relative_to(root).as_posix()
        if unfinished := [p for p in path.relative_to(root).parts if _UNFINISHED.fullmatch(p)]:
            found.append(f"{inside}: {unfinished[0]} is what an unfinished run has")
        elif inside.startswith(".checkpoints/") and not _STAYS.match(inside):
            found.append(f"{inside}: a finished run leaves none")
        elif wrong := _damage(path, inside):
            found.append(f"{inside}: {wrong}")
    return found


def _files(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if name not in _NOT_MADE)
        yield from (Path(folder, name) for name in sorted(files))


def _damage(path: Path, inside: str) -> str | None:
    if named := _OBJECT.fullmatch(inside):
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "md5").hexdigest() == named[1] + named[2]
        return None if same else "its content is not what its name says"
    kind = path.name if path.name in _READERS else path.suffix
    if inside.startswith(".dvc/cache/runs/"):
        kind = ".yaml"
    elif inside == ".dvc/tmp/rwlock":
        kind = ".json"
    if kind not in _READERS:
        return None
    try:
        _READERS[kind](path)
    except Exception as error:  # whatever a reader says of a file that it cannot read
        return f"cannot be read ({type(error).__name__})"
    return None


def _read_yaml(path: Path) -> None:
    text = path.read_text()
    yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    _ends(text)


def _read_csv(path: Path) -> None:
    text = path.read_text()
    if len({len(row) for row in csv.reader(text.splitlines())}) > 1:
        raise ValueError
    _ends(text)


def _read_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    if not path.read_bytes().endswith(_END_OF_PNG):
        raise ValueError


def _read_tensors(path: Path) -> None:
    with safe_open(path, "np") as file:
        file.keys()  # opening compares the header with the size


def _read_page(path: Path) -> None:
    if not path.read_text().rstrip().endswith(("</html>", "</svg>")):
        raise ValueError


def _ends(text: str) -> None:
    if not text.endswith("\n"):
        raise ValueError


_READERS: dict[str, Callable[[Path], object]] = {
    ".parquet": pq.read_table, ".safetensors": _read_tensors, ".png": _read_image,
    ".json": lambda path: json.loads(path.read_text()), ".csv": _read_csv, ".yaml": _read_yaml,
    "dvc.lock": _read_yaml, ".html": _read_page, ".svg": _read_page,
}  # fmt: skip
