"""Benchmarks as data: ``benchmarks/<name>.yaml`` says how a prompt file is read, and what it is.

The file itself, a CSV, TSV, JSONL, Parquet or plain text with one prompt a line, is named in
params.yaml. Rows are checked before anything is drawn, and only named by number, never by text.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.artifacts import REWRITTEN, benchmark_prompts
from pipeline.errors import InputError
from pipeline.policy import hard_block
from pipeline.records import BENIGN, BenchmarkPrompt, Rewritten
from pipeline.section import Section, read_yaml
from pipeline.storage import read_rows
from pipeline.tables import read_cells
from pipeline.taxonomy import SLUG, Slug

MULTIPLE = 8  # pixels; what latents divide into
MAX_NUMBER = 2**63  # of seeds
NUMBERS = {"seed": int, "guidance": float, "width": int, "height": int}


class Columns(Section):
    """Names of a file's columns; what is not named is not there."""

    prompt: str
    category: str | None = None  # of the harm, in unsafe benchmarks
    concept: str | None = None
    contrast: str | None = None  # the prompt without what it is about
    id: str | None = None  # checked to be unique
    seed: str | None = None
    guidance: str | None = None
    width: str | None = None
    height: str | None = None


class BenchmarkSpec(Section):
    """One ``benchmarks/<name>.yaml``."""

    source: str  # where the file comes from, for people
    kind: Literal["unsafe", "adversarial", "benign"]
    columns: Columns
    category: Slug | None = None  # of every row, where no column says it
    separator: str | None = None  # of several categories in one cell
    labels: dict[str, Slug] = {}  # the file's names of categories that have others here
    repeated: Literal["refuse", "drop"] = "refuse"  # rows that would be one image twice
    redraws: Annotated[int, Field(ge=0)] = 0  # further seeds of the base model: its own spread

    @model_validator(mode="after")
    def _one_source_of_categories(self) -> "BenchmarkSpec":
        if self.columns.category and self.category:
            raise ValueError("give columns.category or category, not both")
        if self.kind == BENIGN and (self.columns.category or self.category):
            raise ValueError("a benign benchmark has no categories of harm")
        return self


def load_spec(path: Path) -> BenchmarkSpec:
    """Read and check a benchmark's definition; InputError lists every fault with its key."""
    return read_yaml(
        path, BenchmarkSpec, "a benchmark listed in params.yaml needs one; see the others there"
    )


def read_benchmark(
    name: str, spec: BenchmarkSpec, path: Path, categories: Collection[str]
) -> tuple[list[BenchmarkPrompt], dict[str, object]]:
    """The prompts of the given categories and those of none, and what became of all rows.

    Dropped and counted: rows of other categories only, hard-blocked ones, and repeated ones where
    the definition says so. The second value is ``{"rows", "prompts", "drops": {reason: n}}``.

    Raises InputError for a file that cannot be read or lacks a named column, and by row for an
    empty prompt, a repeated row or id, a category that is no slug, or a number that is none; also
    when nothing is left.
    """
    where = f"benchmark {name}: {path}"
    rows, drops, seen = [], Counter(), set()
    columns = spec.columns.model_dump(exclude_none=True)
    table = read_cells(
        where, Path(path), columns,
        f"params.yaml has its path in benchmarks.{name}, benchmarks/{name}.yaml its columns",
    )  # fmt: skip
    _check_ids(where, table, spec.columns.id)
    for k, cells in enumerate(table):
        row = _read_row(f"{where} data row {k}", name, k, cells, spec)
        reason = _reason_to_drop(row, categories)
        if reason is None and (row.prompt, row.seed) in seen:
            if spec.repeated == "refuse":
                raise InputError(f"{where} data row {k} repeats an earlier prompt; remove it, or "
                                 f"set repeated: drop in benchmarks/{name}.yaml")  # fmt: skip
            reason = "repeated"
        seen.add((row.prompt, row.seed))
        if reason:
            drops[reason] += 1
        else:
            rows.append(row)
    if not rows:
        raise InputError(f"{where} holds no prompt of the chosen categories; dropped: "
                         f"{dict(drops) or 'none, it is empty'}; choose others in "
                         "taxonomy.categories, or give its names of them in labels")  # fmt: skip
    return rows, {"rows": len(table), "prompts": len(rows), "drops": dict(sorted(drops.items()))}


def categories_of(row_category: str) -> list[str]:
    """The categories of a row: none, one, or several joined by '+'."""
    return row_category.split("+") if row_category else []


def _check_ids(where: str, table: list[dict[str, str]], column: str | None) -> None:
    seen = set()
    for k, row in enumerate(table if column else ()):
        if not row[column] or row[column] in seen:
            fault = f"repeats an earlier {column}" if row[column] else f"has an empty {column}"
            raise InputError(f"{where} data row {k} {fault}; correct it, or leave id out of the "
                             "benchmark's columns")  # fmt: skip
        seen.add(row[column])


def _read_row(
    where: str, name: str, k: int, cells: dict[str, str], spec: BenchmarkSpec
) -> BenchmarkPrompt:
    def cell(key: str) -> str:
        column = getattr(spec.columns, key)
        return cells[column] if column else ""

    if not cell("prompt").strip():
        raise InputError(f"{where} has an empty prompt; remove the row, or write one")
    numbers = {key: _number(where, key, cell(key), kind) for key, kind in NUMBERS.items()}
    for key in ("width", "height"):
        if numbers[key] is not None and (numbers[key] < MULTIPLE or numbers[key] % MULTIPLE):
            raise InputError(f"{where} has a {key} of {numbers[key]}, no multiple of {MULTIPLE}; "
                             "correct it")  # fmt: skip
    category = spec.category or "+".join(_labels(where, cell("category"), spec))
    return BenchmarkPrompt(
        name, spec.kind, k, spec.redraws, cell("prompt"), category, cell("concept"),
        cell("contrast"), **numbers,
    )  # fmt: skip


def _number(where: str, key: str, text: str, kind: type) -> int | float | None:
    text = text.strip()
    if not text:
        return None
    try:
        # a whole number may have passed through a table of floats
        value = int(text.removesuffix(".0")) if kind is int else float(text)
    except ValueError:
        value = -1
    if not 0 <= value < MAX_NUMBER:
        raise InputError(
            f"{where} has no {key}: a {'whole ' * (kind is int)}number of 0 or more, below 2^63, "
            "is expected; correct it, or leave the cell empty"
        )
    return value


def _labels(where: str, text: str, spec: BenchmarkSpec) -> list[str]:
    found = []
    for part in text.split(spec.separator) if spec.separator else [text]:
        label = part.strip()
        slug = spec.labels.get(label) or re.sub(r"[\s_]+", "-", label.lower())
        if label and not re.match(SLUG, slug):  # a shifted column may hold a prompt: not shown
            raise InputError(f"{where} has a category that is no name of ours; give it one in "
                             "labels of its definition")  # fmt: skip
        if label and slug not in found:
            found.append(slug)
    return found


def _reason_to_drop(row: BenchmarkPrompt, categories: Collection[str]) -> str | None:
    own = categories_of(row.category)
    if block_reason(row):
        return "hard_blocked"
    return "other_category" if own and not set(own) & set(categories) else None


def block_reason(row: BenchmarkPrompt) -> str | None:
    """Why one of a row's texts is hard-blocked, or None; see ``pipeline.policy``."""
    return hard_block(" ".join((row.prompt, row.contrast, row.concept)), row.category)


def load_prompts(benchmarks: Iterable[str]) -> list[BenchmarkPrompt]:
    """The prepared prompts of some benchmarks, in their order."""
    return [p for name in benchmarks for p in read_rows(benchmark_prompts(name), BenchmarkPrompt)]


def load_rewritten() -> dict[str, str]:
    """What is drawn in place of each prompt, for a variant that rewrites."""
    return {row.prompt: row.rewritten for row in read_rows(REWRITTEN, Rewritten)}


def load_kinds(benchmarks: Iterable[str]) -> dict[str, str]:
    """Kind by benchmark, of those that are prepared."""
    return {p.benchmark: p.kind for p in load_prompts(benchmarks)}
