"""The dataset card of an export: what it is, how it was made, and what to beware of.

Markdown with the Hugging Face Hub's YAML front matter. It holds neither prompts nor pictures.
"""

from pathlib import Path

import jinja2
import pyarrow as pa

from pipeline.drawing.imports import MODEL as IMPORTED
from pipeline.exports.facts import Facts
from pipeline.exports.folder import ROWS
from pipeline.exports.kinds import Kind
from pipeline.judges.rules import RULES
from pipeline.records import arrow_schema

# the Hub's names of sizes, by the least number of rows that is too many
SIZES = {
    1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M",
}  # fmt: skip


def dataset_card(kind: Kind, facts: Facts, rows: int, seed: int, license: str | None) -> str:
    """The card, equal for equal arguments.

    Args:
        rows: of the export.
        seed: the base seed of all draws.
        license: of the dataset, by the Hub's name.
    """
    source = (Path(__file__).parent / "card.md.jinja").read_text(encoding="utf-8")
    template = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # Markdown, not HTML
    ).from_string(source)  # fmt: skip
    return template.render(
        front_matter=_front_matter(kind, rows, license), kind=kind, facts=facts, rows=rows,
        seed=seed, license=license, source=RULES[facts.rule].source, imported=IMPORTED,
        drawn=[model for model, _ in facts.models if model != IMPORTED],
        reasons=sorted({reason for y in facts.yields.values() for reason in y["drops"]}),
    )  # fmt: skip


def _front_matter(kind: Kind, rows: int, license: str | None) -> str:
    from huggingface_hub import DatasetCardData

    tags = ["text-to-image", "preference", "dpo", "safety", "alignment"]
    return DatasetCardData(
        license=license, task_categories=["text-to-image"], pretty_name="Safety preference pairs",
        size_categories=next((name for n, name in SIZES.items() if rows < n), "n>10M"),
        # the Hub asks before it shows such a dataset
        tags=tags + ["not-for-all-audiences"] * kind.unsafe,
        configs=[{"config_name": "default",
                  "data_files": [{"split": "train", "path": f"{ROWS}/*.parquet"}]}],
        dataset_info={
            "features": [_feature(f) for f in arrow_schema(kind.row_type)],
            "splits": [{"name": "train", "num_examples": rows}],
        },
    ).to_yaml()  # fmt: skip


def _feature(field: pa.Field) -> dict[str, object]:
    """A column as the Hub's front matter describes it."""
    if pa.types.is_list(field.type):
        entries = [_feature(entry) for entry in field.type.value_type]
        return {"name": field.name, "list": entries}
    names = {pa.float64(): "float64", pa.int64(): "int64"}
    image = pa.types.is_struct(field.type)  # no other column of ours is one
    dtype = "image" if image else names.get(field.type, str(field.type))
    return {"name": field.name, "dtype": dtype}
