"""Has the language model write a benchmark: prompts of concepts that are never trained on.

They are the concepts of a split in ``data/concepts``, each prompt as the stage `synthesize_prompts`
would write and review it, naming none of a concept of the other splits. The safe prompt of a pair
is its contrast. `benchmarks/heldout.yaml` reads the file: in params.yaml set ``benchmarks.heldout``
to it.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline import artifacts
from pipeline.cli import run_command
from pipeline.errors import InputError
from pipeline.llm.engines import load_engine
from pipeline.params import load_params
from pipeline.prompts.run import make_prompts, make_rules
from pipeline.prompts.synthesize import Asking
from pipeline.records import PromptPair
from pipeline.storage import private_folder, write_csv
from pipeline.taxonomy import Category, load_categories

SPLITS = ("test_unseen", "val")
COLUMNS = ("prompt", "category", "concept", "contrast")  # as benchmarks/heldout.yaml names them


def asked_for(category: Category, split: str) -> Category:
    """A category whose concepts of ``split`` are those asked for, and all others held out."""
    splits = {concept: "train" if own == split else "test_unseen"
              for concept, own in category.concepts.items()}  # fmt: skip
    return Category(**category.model_dump() | {"concepts": splits})


def benchmark_rows(pairs: Sequence[PromptPair]) -> list[dict[str, object]]:
    """The rows of the benchmark's file."""
    return [
        dict(zip(COLUMNS, (p.prompt_unsafe, p.category, p.concept, p.prompt_safe), strict=True))
        for p in pairs
    ]


def write_benchmark(
    path: Path, categories: Mapping[str, Category], split: str, make: partial
) -> dict[str, int]:
    """Write the prompts of a split's concepts, of all categories that have such.

    Args:
        make: ``make_prompts`` but for category and ``folder``; its unfinished runs are kept.

    Returns how many prompts each category has. Raises InputError when no category has a concept of
    the split, and as ``make_prompts``.
    """
    chosen = {name: category for name, category in categories.items()
              if split in category.concepts.values()}  # fmt: skip
    if not chosen:
        raise InputError(f"no category in {artifacts.CONCEPTS} has a concept of split {split!r}; "
                         f"raise concepts.{split} in params.yaml")  # fmt: skip
    unfinished = artifacts.unfinished_prompts(f"{split}-of-all")
    rows, counts = [], {}
    for name, category in chosen.items():
        pairs, _ = make(asked_for(category, split), folder=unfinished / name)
        rows += benchmark_rows(pairs)
        counts[name] = len(pairs)
    private_folder(path.parent)
    write_csv(path, rows, COLUMNS)
    shutil.rmtree(unfinished)
    return counts


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.prompts.benchmark", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="default: %(default)s")
    args = parser.parse_args()
    run_command("benchmark", partial(_write, args.split))


def _write(split: str) -> None:
    params = load_params()
    p, path = params.prompts, artifacts.own_benchmark(split)
    # concepts differ from those trained on, so the prompts of a source file play no part
    make = partial(
        make_prompts, source=None, load=partial(load_engine, **params.llm.loading),
        asking=Asking(**p.asking), rules=make_rules(**p.rules), benchmarks=(),
        base_seed=params.seed, provenance=params.llm.provenance,
    )  # fmt: skip
    counts = write_benchmark(
        path, load_categories(artifacts.CONCEPTS, params.taxonomy.categories), split, make
    )
    print(f"{path}: {sum(counts.values())} prompts, {counts}; set benchmarks.heldout to it")


if __name__ == "__main__":
    main()
