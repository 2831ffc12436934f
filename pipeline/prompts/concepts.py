"""The concepts of every category: its own, a user's file, or proposed by the language model.

Splits are made by concept, so that what a model is tested on was never aligned in other words, and
by hash, so that a concept keeps its split whatever else is in the list.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from pipeline.artifacts import category_file
from pipeline.errors import InputError
from pipeline.llm.chat import Engine
from pipeline.prompts.propose import Listed, Proposing, find_fault, propose
from pipeline.prompts.words import normalise, stems
from pipeline.seeds import seed_for
from pipeline.storage import private_folder, write_text
from pipeline.taxonomy import Category

COLUMNS = {"concept", "category"}
SPLITS = ("train", "val", "test_unseen")


@dataclass(frozen=True)
class Told:
    """A concept of a user's file; "" where it names no split."""

    concept: str
    split: str


def split_of(concept: str, shares: Mapping[str, float], base_seed: int) -> str:
    """The split of a concept, by a hash of its words: one of ``shares``, else ``train``."""
    place = seed_for(base_seed, "split", normalise(concept)) / 2**31
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    return "train"


def read_concepts(path: Path, categories: Sequence[str]) -> dict[str, list[Told]]:
    """Concepts by category of a CSV with columns ``concept,category`` and perhaps ``split``.

    Raises InputError for a file that cannot be read or lacks a column, and by line, never by text,
    for a category that is none of them, and a concept that is blocked, unusable, or there twice.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"concepts.file: cannot read {path} as a UTF-8 CSV: {error}") from error
    if not rows or not COLUMNS <= rows[0].keys():
        raise InputError(f"concepts.file: {path} needs the columns concept,category and rows")
    found: dict[str, list[Told]] = {name: [] for name in categories}
    seen: set[frozenset[str]] = set()
    for number, row in enumerate(rows, 2):
        where = f"concepts.file: {path} line {number}"
        concept, category = (row["concept"] or "").strip(), (row["category"] or "").strip()
        if category not in found:
            raise InputError(f"{where}: the category is none of {', '.join(categories)}; "
                             "correct it, or remove the line")  # fmt: skip
        if fault := find_fault(concept, category):
            raise InputError(f"{where}: the concept cannot be used ({fault}); remove it")
        if stems(concept) in seen:
            raise InputError(f"{where}: the concept is there already; remove one of them")
        seen.add(stems(concept))
        found[category].append(Told(concept, (row.get("split") or "").strip()))
    return found


def complete_categories(
    categories: Mapping[str, Category], told: Mapping[str, Sequence[Told]],
    engine: Engine, proposing: Proposing, shares: Mapping[str, float], base_seed: int,
    exclusive: bool,
) -> tuple[dict[str, Category], dict[str, dict[str, object]]]:  # fmt: skip
    """Give every category its concepts, each with a split.

    A category keeps what its own file lists; else it gets those of ``told``; else the model, which
    is asked only then, proposes some. A concept belongs to one category alone: the first. With
    ``exclusive`` every category is told those of the others too, which its prompts must not name.

    Returns:
        The categories, and by category how many concepts each split has, and drops by reason;
        where the model was asked, also how many were ``wanted`` of it.

    Raises:
        InputError: for a file without a category's concepts, a concept that two files claim, a
            category that is left without one to train on, or an engine that fails.
    """
    listed = _claim_listed(categories, told)
    complete, metrics = {}, {}
    for name, category in categories.items():
        concepts, drops, wanted = dict(category.concepts), Counter(), {}
        if not concepts:
            rows = list(told.get(name, ()))
            if told and not rows:
                raise InputError(f"concepts.file has no concept of category {name!r}")
            if not rows:
                proposed, drops = propose(category, engine, proposing, listed, base_seed)
                rows, wanted = [Told(c, "") for c in proposed], {"wanted": proposing.count}
            concepts = {
                r.concept: r.split or split_of(r.concept, shares, base_seed) for r in rows
            }  # fmt: skip
        complete[name] = _with_concepts(category, concepts)
        sizes = Counter(concepts.values())
        metrics[name] = {"concepts": len(concepts), **wanted, **sizes,
                         "drops": dict(sorted(drops.items()))}  # fmt: skip
    if exclusive:
        complete = {name: _with_others(category, complete) for name, category in complete.items()}
    return complete, metrics


def _claim_listed(categories: Mapping[str, Category], told: Mapping[str, Sequence[Told]]) -> Listed:
    listed = Listed()
    for name, category in categories.items():
        own = category.concepts or [t.concept for t in told.get(name, ())]
        if not all(listed.take(concept, category) for concept in own):
            raise InputError(
                f"category {name!r} lists a concept that is blocked, too long, or claimed by "
                f"another category ({dict(listed.drops)}); a concept belongs to one category"
            )
    return listed


def _with_concepts(category: Category, concepts: Mapping[str, str]) -> Category:
    try:
        complete = Category(
            name=category.name, definition=category.definition, concepts=dict(concepts)
        )
    except ValidationError as error:
        unknown = sum(split not in SPLITS for split in concepts.values())
        raise InputError(f"concepts.file: category {category.name!r} has {unknown} concepts with "
                         f"another split than {', '.join(SPLITS)}") from error  # fmt: skip
    if not complete.train_concepts:
        raise InputError(
            f"category {category.name!r} has no concept of split 'train'; add one to its file or "
            "to concepts.file, or use another llm.model"
        )
    return complete


def save_categories(folder: Path, categories: Iterable[Category]) -> None:
    """Write categories into a private folder, one file each, as ``load_category`` reads them."""
    private_folder(folder)
    for category in categories:
        text = yaml.safe_dump(category.model_dump(), sort_keys=False, allow_unicode=True)
        write_text(category_file(folder, category.name), text)


def _with_others(category: Category, categories: Mapping[str, Category]) -> Category:
    others = [c for other in categories.values() if other is not category
              for c in other.all_concepts]  # fmt: skip
    return category.model_copy(update={"others": others})
