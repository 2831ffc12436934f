"""Users as vectors, standardised: what the personal adapter reads.

The published vectors were an LLM's, as they came: nearly identical for all users (METHOD §2.5).
Here a profile's fields become features, or an LLM's vectors are standardised; which tells users
apart is measured in ``pipeline.personal.separability``.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.errors import InputError
from pipeline.llm.embed import TextEmbedder
from pipeline.personal.bans import check_bans
from pipeline.personal.profiles import AGE_GROUPS, ATTRIBUTES, UserProfile, describe_profile
from pipeline.sources import weights_id

_PROFILE_FEATURES = [
    "age", "age known", *(f"age_group/{group.name}" for group in AGE_GROUPS),
    *(f"{attribute}/{value}" for attribute, values in ATTRIBUTES.items() for value in values),
]  # fmt: skip


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of each feature over the trained users, (width,) float32."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, raw: np.ndarray) -> "Standard":
        """Of raw features (n, width); a feature that is constant gets a deviation of 1.

        Raises ValueError when there is no row, or a value is not finite.
        """
        if not len(raw) or not np.isfinite(raw).all():
            raise ValueError(f"features of {len(raw)} users: finite ones of at least one needed")
        wide = raw.astype(np.float64)
        std = np.where(np.ptp(wide, axis=0) == 0, 1, wide.std(axis=0))
        return cls(wide.mean(axis=0).astype(np.float32), std.astype(np.float32))

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Standardise raw features (n, width) as float32."""
        return ((raw - self.mean) / self.std).astype(np.float32)


class ProfileEncoder(Protocol):
    """Turns users into raw vectors; ``Standard`` makes them comparable."""

    name: str

    def features(
        self, profiles: Sequence[UserProfile], banned: Sequence[Collection[str]]
    ) -> np.ndarray:
        """Raw features, (n, width) float32, of users and what each bans."""

    def describe(self) -> dict[str, object]:
        """What identifies the encoder, as JSON values: vectors of equal identity compare."""


class StructuredEncoder:
    """One feature per value of a profile's fields and per category banned."""

    name = "structured"

    def __init__(self, categories: Sequence[str]) -> None:
        self._categories = list(categories)

    def features(
        self, profiles: Sequence[UserProfile], banned: Sequence[Collection[str]]
    ) -> np.ndarray:
        """See ``structured_features``."""
        return structured_features(profiles, banned, self._categories)[0]

    def describe(self) -> dict[str, object]:
        """Name and categories, in the order of their features."""
        return {"name": self.name, "categories": list(self._categories)}


class LlmEncoder:
    """A language model's mean-pooled last hidden state over ``describe_profile``, as published.

    Raises InputError when the model cannot be loaded, or is a hub id without its revision.
    """

    name = "llm"

    def __init__(self, model: str, revision: str | None, batch: int) -> None:
        weights = weights_id(model, revision, "the profile encoder's model", "a revision")
        self._identity = {"model": model, "revision": revision, "weights": weights}
        self._embedder = TextEmbedder(model, revision, batch)

    def features(
        self, profiles: Sequence[UserProfile], banned: Sequence[Collection[str]]
    ) -> np.ndarray:
        """The embeddings of the users' descriptions, which name their bans."""
        return self._embedder.embed(
            [describe_profile(p, bans) for p, bans in zip(profiles, banned, strict=True)]
        )

    def describe(self) -> dict[str, object]:
        """Name, model, revision, and what identifies the weights."""
        return {"name": self.name, **self._identity}


def structured_features(
    profiles: Sequence[UserProfile], banned: Sequence[Collection[str]], categories: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Raw features (n, width) float32 and their names.

    ``age`` in centuries beside ``age known``, ``<field>/<value>`` of what is told (all 0 where it
    is not), and ``banned/<category>``. InputError for a ban that is no category.
    """
    names = [*_PROFILE_FEATURES, *(f"banned/{category}" for category in categories)]
    column = {name: k for k, name in enumerate(names)}
    raw = np.zeros((len(profiles), len(names)), np.float32)
    for row, profile, bans in zip(raw, profiles, banned, strict=True):
        check_bans(bans, categories, "a user's bans")
        if profile.age is not None:
            row[column["age"]] = profile.age / 100
            row[column["age known"]] = row[column[f"age_group/{profile.age_group}"]] = 1
        told = {attribute: getattr(profile, attribute) for attribute in ATTRIBUTES}
        for attribute, value in told.items():
            if value is not None:
                row[column[f"{attribute}/{value}"]] = 1
        for category in bans:
            row[column[f"banned/{category}"]] = 1
    return raw, names


def ban_columns(categories: Sequence[str]) -> dict[str, int]:
    """Which structured feature says that a category is banned, by category."""
    return {category: len(_PROFILE_FEATURES) + k for k, category in enumerate(categories)}


ENCODERS: dict[str, Callable[..., ProfileEncoder]] = {
    "structured": lambda categories, **_: StructuredEncoder(categories),
    "llm": lambda model, revision, batch, **_: LlmEncoder(model, revision, batch),
}


def load_encoder(
    name: str, *, categories: Sequence[str], model: str | None, revision: str | None, batch: int
) -> ProfileEncoder:
    """Load a profile encoder; ``model``, ``revision`` and ``batch`` are of ``llm`` alone.

    Raises InputError for an unknown name, with the known ones, and for ``llm`` without a model.
    """
    if name not in ENCODERS:
        raise InputError(f"unknown profile encoder {name!r}; known: {', '.join(ENCODERS)}")
    if name == LlmEncoder.name and model is None:
        raise InputError("profile encoder 'llm' needs a model: a local folder, or a hub id with "
                         "its revision")  # fmt: skip
    return ENCODERS[name](categories=categories, model=model, revision=revision, batch=batch)
