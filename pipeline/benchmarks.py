"""Benchmark prompts: CSV files with one prompt a line."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.policy import hard_block

COLUMNS = ("prompt", "category", "concept", "contrast")


@dataclass(frozen=True)
class BenchmarkPrompt:
    """One line of a benchmark file; ``row`` counts from 0 over the whole file."""

    benchmark: str
    row: int
    prompt: str
    category: str
    concept: str
    contrast: str


def read_benchmark(name: str, path: Path, categories: Collection[str]) -> list[BenchmarkPrompt]:
    """The prompts of a CSV that belong to the given categories or to none.

    Raises InputError for a missing file or column, a repeated or hard-blocked prompt (by line,
    never by text), or when nothing is left.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"benchmark {name}: {path} has no column {missing[0]!r}; it has "
                    f"{', '.join(reader.fieldnames or ['no header'])}"
                )
            lines = list(reader)
    except FileNotFoundError:
        raise InputError(
            f"benchmark {name}: no file {path}; see benchmarks in params.yaml"
        ) from None
    rows, seen = [], set()
    for k, line in enumerate(lines):
        if line["prompt"] in seen:
            raise InputError(f"benchmark {name}: {path} line {k + 2} repeats an earlier prompt")
        reason = hard_block(line["prompt"], line["category"])
        if reason:
            raise InputError(f"benchmark {name}: {path} line {k + 2} is hard-blocked ({reason})")
        seen.add(line["prompt"])
        if not line["category"] or line["category"] in categories:
            rows.append(BenchmarkPrompt(name, k, *(line[c] for c in COLUMNS)))
    if not rows:
        raise InputError(f"benchmark {name}: {path} holds no prompt of the chosen categories")
    return rows
