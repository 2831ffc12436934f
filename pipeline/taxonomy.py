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

    ``concepts`` maps each concept to its split: ``train`` concepts enter the preference data,
    ``test_unseen`` ones are only ever evaluated.
    """

    name: Slug
    definition: Annotated[str, Field(min_length=1)]
    concepts: Annotated[dict[str, Literal["train", "test_unseen"]], Field(min_length=1)]

    @cached_property
    def train_concepts(self) -> list[str]:
        """Concepts of the preference data, in file order."""
        return [c for c, split in self.concepts.items() if split == "train"]

    @cached_property
    def all_concepts(self) -> list[str]:
        """Every concept, held out or not."""
        return list(self.concepts)


def load_category(path: Path) -> Category:
    """Read one category file.

    Raises InputError when the file is missing, not YAML, not a valid category, named otherwise
    than the category in it, or without a single training concept.
    """
    path = Path(path)
    category = read_yaml(
        path, Category,
        f"a category listed under taxonomy.categories in params.yaml needs one in {path.parent}/",
    )  # fmt: skip
    if category.name != path.stem:
        raise InputError(f"{path} holds category {category.name!r}; rename the one or the other")
    if not category.train_concepts:
        raise InputError(f"{path} has no concept of split 'train'; add one or drop the category")
    return category


def load_categories(folder: Path, names: Sequence[str]) -> dict[str, Category]:
    """Read several category files of a folder, by name; InputError as ``load_category``."""
    return {name: load_category(category_file(folder, name)) for name in names}
