"""What is unsafe, by where it lies and by what it holds.

Unsafe is what shows the unsafe side or can be turned back into it: prompts, images (a pair's two
sides lie in one file), latents, embeddings of images, the reports that show images, and what an
unfinished run has of these. What was trained on it, and numbers and verdicts about it, are not.
"""

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline import artifacts as a
from pipeline.records import Score, User, UserPair
from pipeline.studies.dial import Outcome

UNSAFE, KEPT, UNKNOWN = "unsafe", "kept", "unknown"
LISTINGS, EMPTY = "listings", "empty"  # DVC's lists of a folder's files; files without content

UNSAFE_AT: Mapping[str, tuple[Path, ...]] = {
    "prompts": (a.prompts("").parent, a.benchmark_prompts("").parent, a.REWRITTEN.parent,
                a.CONCEPTS),
    "images": (
        a.images(""), a.pairs("").parent, a.benchmark(""), a.dial(""), a.alone(""), a.PSA_IMAGES,
        a.measured_part(""), a.scaled_merge(""), a.shown_by_form(""), a.GENERATED,
    ),
    "latents": (a.latents(""), a.CALIBRATION),
    "embeddings": (a.benchmark_scores(""), a.PSA_SCORES),
    "reports": (a.REPORT.parent, a.STUDIES_REPORT.parent),
    "unfinished": (a.checkpoints(""), a.DVC_TEMPORARY),
}  # fmt: skip
KEPT_AT: Mapping[str, tuple[Path, ...]] = {
    "models": (a.MODELS,),
    "metrics": (a.METRICS, a.SUMMARY_TABLE.parent, a.live("")),
    "scores": (a.scores("").parent, a.dial_outcomes("").parent),
    "users": (a.USERS.parent, a.USER_PAIRS.parent),
    "references": (a.REFERENCES,),  # embeddings of what the user gave as harmless
}
VERDICTS = {
    **dict.fromkeys(UNSAFE_AT, UNSAFE), **dict.fromkeys([*KEPT_AT, LISTINGS, EMPTY], KEPT)
}  # fmt: skip
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # none that takes other files for its own
_KEPT_ROWS = {Score: "scores", Outcome: "scores", User: "users", UserPair: "users"}


def kind_at(path: Path) -> str | None:
    """The kind of what lies at a path, relative to the repository's root; None for other paths."""
    for kind, places in {**UNSAFE_AT, **KEPT_AT}.items():
        if any(path.is_relative_to(place) for place in places):
            return kind
    return None


def judge(content: str | None, named: Iterable[str]) -> tuple[str, str]:
    """Verdict and kind of a file by its content's kind and the kinds of the places it is from.

    Unsafe content is unsafe wherever it lies. Other content may be of several places, as the cache
    stores equal files once: it is kept for any that is, and else as unsafe as the others.
    """
    if VERDICTS.get(content) == UNSAFE:
        return UNSAFE, content
    kinds = sorted(named, key=lambda kind: (VERDICTS[kind] != KEPT, kind))
    kind = next(iter([*kinds, content]))
    return (VERDICTS[kind], kind) if kind else (UNKNOWN, "?")


def content_kind(path: Path) -> str | None:
    """The kind of a file by its content alone; None for links and what may be anything, as text."""
    if path.is_symlink() or not path.is_file():  # reading a pipe would not end
        return None
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if not head:
            return EMPTY
        if head.startswith(b"PAR1"):
            return _table_kind(path)
        return _tensors_kind(path) or _picture_kind(path) or _page_kind(path, head)
    except OSError:
        return None


def _table_kind(path: Path) -> str | None:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):  # the latter of a footer that is damaged
        return "unfinished"  # may hold anything
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return "images"
        if pa.types.is_binary(field.type) and field.name.startswith("jpg_"):
            return "images"  # Pick-a-Pic's layout (``pipeline.exports``)
    for field in schema:
        if pa.types.is_string(field.type) and f"{field.name}_".startswith("prompt_"):
            return "prompts"
        if field.name.endswith("_embedding"):
            return "embeddings"
    for row_type, kind in _KEPT_ROWS.items():
        if set(schema.names) <= {f.name for f in fields(row_type)}:
            return kind
    return None


def _tensors_kind(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            names, header = set(file.keys()), file.metadata() or {}
    except SafetensorError:
        return None
    if "calibration" in header or names & {"rejected_mean", "prompt_embeds"}:
        return "latents"
    if "psa" in header or (names and all(".lora_" in n or n.endswith(".alpha") for n in names)):
        return "models"
    return "users" if "space" in header else None


def _picture_kind(path: Path) -> str | None:
    try:
        with Image.open(path, formats=_FORMATS):
            return "images"
    except Image.UnidentifiedImageError:
        return None
    except Image.DecompressionBombError:
        return "images"


def _page_kind(path: Path, head: bytes) -> str | None:
    if not head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as page:
        return "reports" if page.find(b"data:image/") >= 0 else None
