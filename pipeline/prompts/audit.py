"""Leaks: training prompts that are benchmark prompts too, exactly or nearly.

``python -m pipeline.prompts.audit TRAIN --against TEST ...`` reads any files of prompts, such as
the published CoProV2's; the stage of the same name reads what the pipeline wrote.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.cli import run_command
from pipeline.errors import InputError
from pipeline.prompts.repeats import EXACT, NEAR, NORMALISED, Repeats
from pipeline.prompts.words import Phrases, stems
from pipeline.records import PromptPair
from pipeline.tables import column_names, read_cells
from pipeline.taxonomy import Category

KINDS = (EXACT, NORMALISED, NEAR)
PROMPT_COLUMNS = ("prompt", "prompt_unsafe", "prompt_safe", "caption", "text")


def count_leaks(
    texts: Sequence[str], benchmarks: Mapping[str, Iterable[str]], near: float | None
) -> dict[str, dict[str, int]]:
    """How many texts each benchmark holds, by kind; kinds and ``near`` are as of ``Repeats``."""
    counts = {}
    for name, prompts in benchmarks.items():
        known = Repeats(near, prompts)
        found = [known.find(text) for text in texts]
        counts[name] = {kind: found.count(kind) for kind in KINDS}
    return counts


def count_shared(pairs: Sequence[PromptPair], near: float | None) -> dict[str, int]:
    """How many unsafe prompts repeat one of an earlier category, by kind."""
    earlier, counts = Repeats(near), dict.fromkeys(KINDS, 0)
    for category in dict.fromkeys(p.category for p in pairs):
        own = [p.prompt_unsafe for p in pairs if p.category == category]
        for kind in map(earlier.find, own):
            if kind:
                counts[kind] += 1
        for text in own:
            earlier.add(text)
    return counts


def count_foreign(
    pairs: Sequence[PromptPair], categories: Mapping[str, Category]
) -> dict[str, int]:
    """How many pairs name a concept that is not their own to name, on either side.

    ``held_out``: one that is kept for tests, of any category; ``other_category``: one of another.
    """
    held_out = Phrases(c for category in categories.values() for c in category.held_out_concepts)
    others = {
        name: Phrases(c for n, o in categories.items() if n != name for c in o.all_concepts)
        for name in categories
    }
    counts = {"held_out": 0, "other_category": 0}
    for pair in pairs:
        own, texts = stems(pair.concept), (pair.prompt_unsafe, pair.prompt_safe)
        for kind, phrases in (("held_out", held_out), ("other_category", others[pair.category])):
            counts[kind] += any(phrases.in_text(text, but=own) for text in texts)
    return counts


def audit_pairs(
    pairs: Sequence[PromptPair], benign: Sequence[str], categories: Mapping[str, Category],
    benchmarks: Mapping[str, Sequence[str]], near: float | None,
) -> dict[str, object]:  # fmt: skip
    """Leaks of all prompts by benchmark, and what categories share.

    ``benign`` are the prompts that the model is kept the same on: benchmarks that hold them would
    flatter its quality. ``concepts`` of the result are ``count_foreign``'s counts, which
    `concepts.exclusive` makes 0.

    Raises InputError when a benchmark holds a prompt, be it in other case or punctuation, or with
    ``near`` nearly a pair's: such prompts must not be trained on. Benign prompts are nearly one
    where two captions of everyday scenes are, which is only counted.
    """
    texts = [t for p in pairs for t in (p.prompt_unsafe, p.prompt_safe)]
    leaks, benign_leaks = (count_leaks(some, benchmarks, near) for some in (texts, benign))
    _refuse_leaks(leaks, KINDS, "run `dvc repro synthesize_prompts` again, which leaves them out")
    _refuse_leaks(benign_leaks, (EXACT, NORMALISED), "take them out of latents.benign_prompts")
    return {
        "pairs": len(pairs), "leaks": leaks, "benign_leaks": benign_leaks,
        "shared_across_categories": count_shared(pairs, near),
        "concepts": count_foreign(pairs, categories),
    }  # fmt: skip


def _refuse_leaks(
    leaks: Mapping[str, Mapping[str, int]], kinds: Sequence[str], remedy: str
) -> None:
    held = {name: sum(n[kind] for kind in kinds) for name, n in leaks.items()}
    if leaked := {name: n for name, n in held.items() if n}:
        raise InputError(f"training prompts are in benchmarks ({leaked}); {remedy}")


def read_texts(path: Path) -> list[str]:
    """The prompts of a file, of every column that is named as prompts are; InputError if none."""
    path = Path(path)
    if path.suffix.lower() == ".txt":
        names = {"prompt": "prompt"}
    else:
        found = column_names(path) & set(PROMPT_COLUMNS)
        names = {name: name for name in sorted(found)}
    if not names:
        raise InputError(f"{path} has no column of prompts: one of {', '.join(PROMPT_COLUMNS)}")
    rows = read_cells(str(path), path, names)
    texts = [row[name] for row in rows for name in names if row[name].strip()]
    if not texts:
        raise InputError(f"{path} holds no prompt")
    return texts


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.prompts.audit", description=__doc__)
    parser.add_argument("train", type=Path, help="CSV, TSV, Parquet or text of training prompts")
    parser.add_argument("--against", type=Path, nargs="+", required=True, help="benchmark files")
    parser.add_argument("--near", type=_jaccard, help="word Jaccard that counts, such as 0.85")
    args = parser.parse_args()
    run_command("audit", lambda: _print_leaks(args.train, args.against, args.near))


def _jaccard(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("a number between 0 and 1 is expected")
    return value


def _print_leaks(train: Path, against: Sequence[Path], near: float | None) -> None:
    texts, benchmarks = read_texts(train), {str(p): read_texts(p) for p in against}
    print(f"{train}: {len(texts)} prompts")
    for name, prompts in benchmarks.items():
        held = count_leaks(prompts, {"train": texts}, near)["train"]
        shares = ", ".join(f"{held[k]} {k} ({held[k] / len(prompts):.1%})" for k in KINDS)
        print(f"{name}: of {len(prompts)} prompts in training: {shares}")


if __name__ == "__main__":
    main()
