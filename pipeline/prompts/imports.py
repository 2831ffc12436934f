"""Pairs that somebody else wrote: a CSV or Parquet of pairs, or the published CoProV2's files.

They go through the same review as those of a language model. Errors name rows by number, never by
text.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.llm.replies import Fault
from pipeline.policy import hard_block
from pipeline.prompts.review import Review
from pipeline.prompts.synthesize import make_row, summarize
from pipeline.prompts.validate import Pair, tidy_pair
from pipeline.records import PromptPair
from pipeline.tables import column_names, read_cells

PAIRED = {"prompt_unsafe", "prompt_safe", "category"}  # perhaps concept
COPROV2 = {"prompt", "image", "category"}  # one row a side, told by the image's name
# names of categories in published files that are none of ours (METHOD §1.1)
CATEGORY_NAMES = {
    "harrasment": "harassment", "sexuality": "sexual", "illegal activity": "illegal-activity",
    "self harm": "self-harm", "selfharm": "self-harm", "shock": "shocking",
}  # fmt: skip
_IMAGE = re.compile(r"^(?P<side>[us])_(?P<pair>.+)$")


@dataclass(frozen=True)
class Imported:
    """One pair of a file."""

    pair: Pair
    categories: tuple[str, ...]  # one, or several that it belongs to
    concept: str  # "" where the file knows none
    images: tuple[str, str] | None = None  # names of the unsafe and the safe one, by CoProV2's CSV


def read_pairs(path: Path) -> tuple[list[Imported], Counter[str]]:
    """The pairs of a file, and what it holds that is no pair, by reason.

    A CSV or Parquet with ``prompt_unsafe, prompt_safe, category`` and perhaps ``concept``; or the
    CSV of CoProV2, ``prompt, image, category`` with images ``u_<pair>`` and ``s_<pair>``, where a
    side without its other is counted as ``one_sided``. Categories are put into our names; a row
    without one is counted as ``no_category``.

    Raises InputError for a file that cannot be read, or has none of these sets of columns.
    """
    columns = column_names(path)
    where = f"prompts.source: {path}"
    for needed, read in ((PAIRED, _read_paired), (COPROV2, _join_sides)):
        if needed <= columns:
            names = sorted(columns & (needed | {"concept"}))
            pairs, drops = read(read_cells(where, Path(path), dict(zip(names, names, strict=True))))
            kept = [pair for pair in pairs if pair.categories]
            return kept, drops + Counter(no_category=len(pairs) - len(kept))
    raise InputError(
        f"{where} needs the columns {', '.join(sorted(PAIRED))} or, as CoProV2, "
        f"{', '.join(sorted(COPROV2))}; it has {len(columns)} columns"
    )


def import_prompts(
    path: Path, review: Review, revision: str
) -> tuple[list[PromptPair], dict[str, object]]:
    """The acceptable pairs of a file that belong to the review's category, and what became of all.

    ``revision`` identifies the file's content in the rows. Raises InputError as ``read_pairs``, and
    when no pair of the category is acceptable. ``file`` of the second value counts what is of no
    category in particular.
    """
    name = review.category.name
    rows, lost = read_pairs(path)
    own = {k: row for k, row in enumerate(rows) if name in row.categories}
    held_out = review.category.held_out_concepts
    judged = review.judge({k: _refused(row, held_out) or row.pair for k, row in own.items()},
                          lambda k: own[k].concept)  # fmt: skip
    kept = {k: pair for k, pair in judged.items() if isinstance(pair, Pair)}
    drops = Counter(str(fault) for fault in judged.values() if not isinstance(fault, Pair))
    if not kept:
        raise InputError(
            f"category {name!r}: {path} holds no acceptable pair of it among {len(own)} "
            f"(reasons: {dict(drops)}); see prompts in params.yaml for the limits"
        )
    told = {"engine": "import", "model": Path(path).name, "revision": revision,
            "template_version": ""}  # fmt: skip
    pairs = [make_row(name, own[k].concept, pair, 0, told) for k, pair in kept.items()]
    metrics = summarize(pairs, drops, len(own), {r.concept for r in own.values()})
    return pairs, metrics | {"file": {"pairs": len(rows), "drops": dict(sorted(lost.items()))}}


def _refused(row: Imported, held_out: Collection[str]) -> Fault | None:
    """Why a row is refused, whatever its prompts are to the category: by all that it belongs to."""
    reason = hard_block(f"{row.pair.text}\n{row.concept}", "+".join(row.categories))
    if reason is None and row.concept in held_out:
        reason = "held_out_concept"
    return Fault(reason) if reason else None


def _read_paired(rows: Sequence[dict[str, str]]) -> tuple[list[Imported], Counter[str]]:
    pairs = [
        Imported(
            tidy_pair(row["prompt_unsafe"], row["prompt_safe"]), our_categories(row["category"]),
            row.get("concept", "").strip(),
        )
        for row in rows
    ]  # fmt: skip
    return pairs, Counter()


def _join_sides(rows: Sequence[dict[str, str]]) -> tuple[list[Imported], Counter[str]]:
    """Pairs from one row a side; a pair of several categories has its rows once for each."""
    sides: dict[str, dict[str, str]] = {}
    categories: dict[str, dict[str, None]] = {}
    drops: Counter[str] = Counter()
    for row in rows:
        found = _IMAGE.match(Path(row["image"]).name)
        if found is None:
            drops["unknown_image"] += 1
            continue
        sides.setdefault(found["pair"], {})[found["side"]] = row["prompt"]
        own = dict.fromkeys(our_categories(row["category"]))
        categories.setdefault(found["pair"], {}).update(own)
    pairs = []
    for name, both in sides.items():
        if len(both) < 2:
            drops["one_sided"] += 1
            continue
        pair, images = tidy_pair(both["u"], both["s"]), (f"u_{name}", f"s_{name}")
        pairs.append(Imported(pair, tuple(categories[name]), "", images))
    return pairs, drops


def our_categories(text: str) -> tuple[str, ...]:
    """Our names of a cell's categories, which are divided by commas."""
    names = (part.strip().lower() for part in text.split(","))
    return tuple(
        CATEGORY_NAMES.get(n, re.sub(r"[\s_]+", "-", n)) for n in dict.fromkeys(names) if n
    )
