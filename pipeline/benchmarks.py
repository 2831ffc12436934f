"""Benchmark prompts: CSV files with one prompt a line."""

import csv
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.policy import hard_block
from pipeline.taxonomy import SLUG

log = logging.getLogger(__name__)

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


def read_benchmark(name: str, path: Path) -> list[BenchmarkPrompt]:
    """Every prompt of a CSV.

    Raises InputError for a missing file or column, text that is not UTF-8, an empty, repeated or
    hard-blocked prompt, or a category that is no slug (by line, never by text).
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
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"benchmark {name}: {path} is not a UTF-8 CSV file: {error}") from error
    rows, seen = [], set()
    for k, line in enumerate(lines):
        fault = _find_fault(line, seen)
        if fault:
            raise InputError(f"benchmark {name}: {path} data row {k} {fault}")
        seen.add(line["prompt"])
        rows.append(BenchmarkPrompt(name, k, *(line[c] for c in COLUMNS)))
    return rows


def _find_fault(line: dict[str, str | None], seen: set[str]) -> str | None:
    if any(line[c] is None for c in COLUMNS):
        return "has too few fields"
    if not line["prompt"].strip():
        return "has an empty prompt"
    if line["prompt"] in seen:
        return "repeats an earlier prompt"
    if line["category"] and not re.match(SLUG, line["category"]):
        return f"has category {line['category']!r}; categories are slugs such as self-harm"
    reason = hard_block(line["prompt"], line["category"])
    return f"is hard-blocked ({reason})" if reason else None


def of_categories(
    prompts: Sequence[BenchmarkPrompt], categories: Collection[str]
) -> list[BenchmarkPrompt]:
    """The prompts of the given categories and those of none; the rest is counted in the log.

    Raises InputError when nothing is left.
    """
    kept = [p for p in prompts if not p.category or p.category in categories]
    if not kept:
        name = prompts[0].benchmark if prompts else "file"
        raise InputError(f"benchmark {name} holds no prompt of the chosen categories")
    if len(kept) < len(prompts):
        others = sorted({p.category for p in prompts} - set(categories) - {""})
        log.info("benchmark %s: %d prompts of other categories left out (%s)", kept[0].benchmark,
                 len(prompts) - len(kept), ", ".join(others))  # fmt: skip
    return kept
