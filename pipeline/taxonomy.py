"""Harm categories: one YAML file each, with a policy-level definition and concepts by split."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.artifacts import category_file
from pipeline.errors import InputError
from pipeline.section import Section, read_yaml

SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Slug = Annotated[str, Field(pattern=SLUG, max_length=40)]


class Category(Section):
    """One harm category.

    ``concepts`` maps each concept to its split: ``train`` concepts enter the preference data, the
    others never do. A user's file may have none; those that `propose_concepts` writes have some.
    """

    name: Slug
    definition: Annotated[str, Field(min_length=1)]
    concepts: dict[str, Literal["train", "val", "test_unseen"]] = {}
    others: list[str] = []  # concepts of other categories, which its prompts must not name

    @cached_property
    def train_concepts(self) -> list[str]:
        """Concepts of the preference data, in file order."""
        return [c for c, split in self.concepts.items() if split == "train"]

    @cached_property
    def held_out_concepts(self) -> list[str]:
        """Concepts that never enter the preference data, in file order."""
        return [c for c, split in self.concepts.items() if split != "train"]

    @cached_property
    def all_concepts(self) -> list[str]:
        """Every concept, held out or not."""
        return list(self.concepts)


def load_category(path: Path) -> Category:
    """Read one category file.

    Raises InputError when the file is missing, not YAML, not a valid category, or named otherwise
    than the category in it. Concepts are told by position, never by text.
    """
    path = Path(path)
    category = read_yaml(
        path, Category,
        f"a category listed under taxonomy.categories in params.yaml needs one in {path.parent}/",
        private=True,
    )  # fmt: skip
    if category.name != path.stem:
        raise InputError(f"{path} holds category {category.name!r}; rename the one or the other")
    return category


def load_categories(folder: Path, names: Sequence[str]) -> dict[str, Category]:
    """Read several category files of a folder, by name; InputError as ``load_category``."""
    return {name: load_category(category_file(folder, name)) for name in names}
