"""Prompts that a user brings: from the command line or a file, checked before a model is loaded."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pipeline.errors import InputError
from pipeline.policy import hard_block

MAX_SEED = 2**63 - 1
Plan = Mapping[str, tuple[str, int]]  # prompt and seed of every image by file name


@dataclass(frozen=True)
class Prompt:
    """A prompt, where it stands (errors name that, never the text), and a seed of its own."""

    text: str
    where: str
    seed: int | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a .csv with a column ``prompt``, perhaps ``seed``, or of a text, one a line.

    Raises InputError for a file that cannot be read, and by line for a bad row of a CSV.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(_read_csv(file) if path.suffix == ".csv" else _read_lines(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--prompts: cannot read {path} as UTF-8 text: {error}") from error


def _read_lines(file: TextIO) -> Iterator[Prompt]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield Prompt(line.strip(), f"{file.name} line {number}")


def _read_csv(file: TextIO) -> Iterator[Prompt]:
    reader = csv.DictReader(file)
    if "prompt" not in (reader.fieldnames or []):  # other names may be prompts: not shown
        raise InputError(f"{file.name} has no column 'prompt' in its first line")
    for row in reader:
        where, seed = f"{file.name} line {reader.line_num}", row.get("seed")
        if None in row:
            raise InputError(f"{where} has too many fields; a prompt with a comma needs quotes")
        if "seed" in row and not (seed and seed.isascii() and seed.isdecimal()):
            raise InputError(f"{where} has no whole number as its seed")
        yield Prompt(row["prompt"] or "", where, int(seed) if seed else None)


def plan_images(prompts: Sequence[Prompt], seed: int, images: int) -> Plan:
    """What to draw, ``images`` of each prompt; names count prompts from 0: ``0003-seed17.png``.

    A prompt's own seed goes before ``seed``. Raises InputError when there is nothing to draw, and
    by position for an empty or hard-blocked prompt or a seed out of range.
    """
    plan = {}
    for index, prompt in enumerate(prompts):
        first = seed if prompt.seed is None else prompt.seed
        if not prompt.text.strip():
            raise InputError(f"{prompt.where} is empty")
        if reason := hard_block(prompt.text):
            raise InputError(f"{prompt.where} is hard-blocked ({reason})")
        if not 0 <= first <= MAX_SEED - images:
            raise InputError(f"{prompt.where}: its seed is not within 0 to 2^63 - 1")
        for own in range(first, first + images):
            plan[f"{index:04d}-seed{own}.png"] = prompt.text, own
    if not plan:
        raise InputError("nothing to draw: give a prompt, and --images 1 or more")
    return plan
