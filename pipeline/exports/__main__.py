"""Hand preference pairs to others: ``python -m pipeline.exports KIND --out FOLDER``.

Writes a folder that `datasets.load_dataset` reads, with a dataset card. Prompts and pictures are
never printed.
"""

import argparse
from functools import partial
from pathlib import Path

from pipeline import artifacts
from pipeline.cli import run_command
from pipeline.errors import InputError
from pipeline.exports.card import dataset_card
from pipeline.exports.facts import gather_facts
from pipeline.exports.folder import CARD, ROWS, open_folder
from pipeline.exports.kinds import KINDS, rows_of
from pipeline.params import load_params
from pipeline.records import PreferencePair
from pipeline.storage import stream_rows, write_rows, write_text


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.exports", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("kind", choices=[name for name in KINDS if name != "withheld"],
        help="pickapic: for public Diffusion-DPO trainers; redacted: without what is unsafe; "
        "dataset: all of it")  # fmt: skip
    add("--out", type=Path, required=True, metavar="FOLDER", help="outside of git")
    add("--categories", nargs="+", metavar="CATEGORY", help="default: all of params.yaml")
    add("--withhold", action="store_true", help="redacted: leave the rejected picture out")
    add("--license", help="of the dataset, by the Hub's name, such as cc-by-4.0")
    args = parser.parse_args()
    if args.withhold and args.kind != "redacted":
        parser.error("--withhold is for the kind redacted")
    return args


def _run(args: argparse.Namespace) -> None:
    params = load_params()
    known = params.taxonomy.categories
    categories = list(dict.fromkeys(args.categories or known))
    if unknown := sorted(set(categories) - set(known)):
        raise InputError(f"--categories: {', '.join(unknown)} is not in {', '.join(known)}")
    name = "withheld" if args.withhold else args.kind
    kind, facts = KINDS[name], gather_facts(categories)
    folder, rows = open_folder(args.out, name), 0
    for category in categories:
        pairs = stream_rows(artifacts.pairs(category), PreferencePair)
        path = folder / ROWS / f"{category}.parquet"
        rows += write_rows(path, kind.row_type, rows_of(kind, pairs))
    write_text(folder / CARD, dataset_card(kind, facts, rows, params.seed, args.license))
    private = ", unsafe prompts and pictures among them: keep it private" if kind.unsafe else ""
    print(f"{rows} rows are in {args.out}{private}")


def main() -> None:
    """Command line entry point; errors end it as they end a stage."""
    run_command("exports", partial(_run, _parse()))


if __name__ == "__main__":
    main()
