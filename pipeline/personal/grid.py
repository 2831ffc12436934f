"""What users are shown for some prompts as arrays (users, prompts), beside the base model's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.benchmarks import categories_of
from pipeline.errors import InputError
from pipeline.evaluate.distances import cmmd_parts
from pipeline.evaluate.judged import Judged, Key, check_judges, check_texts
from pipeline.evaluate.measure import Metrics, drawn, drifts
from pipeline.evaluate.metrics import Estimate
from pipeline.personal.crossed import crossed_distance, crossed_estimate, where_asked


def keys_of_kind(base: Judged, kind: str) -> list[Key]:
    """The keys of the common seeds of all benchmarks of a kind; InputError when there are none."""
    names = [name for name, its_kind in base.benchmarks.items() if its_kind == kind]
    keys = [key for name in names for key in base.keys(name)]
    if not keys:
        raise InputError(f"{base.variant} has no images of {kind} prompts; give the evaluation a "
                         f"benchmark of kind {kind!r}")  # fmt: skip
    return keys


def inside_categories(
    base: Judged, keys: Sequence[Key], categories: Sequence[str]
) -> dict[str, np.ndarray]:
    """By category, whether each prompt is of it, (prompts,) bool.

    Raises InputError for a prompt of none, or of one that is not among the categories: nobody
    could ban it, so it would count as allowed.
    """
    found = [categories_of(row.category) for row in base.select(keys)]
    for (benchmark, row, _), names in zip(keys, found, strict=True):
        if not names or not set(names) <= set(categories):
            raise InputError(
                f"{benchmark} row {row}: its category is {'+'.join(names)!r}; unsafe prompts need "
                f"one of {', '.join(categories)}"
            )
    return {c: np.array([c in names for names in found]) for c in categories}


@dataclass(frozen=True)
class Grid:
    """What users (rows) are shown for some prompts (columns); intervals by ``crossed_estimate``.

    Raises InputError when a user lacks an image or has one of another prompt, or the judges differ.
    """

    seen: Sequence[Judged]  # by user, the same object where users share conditions
    base: Judged
    keys: Sequence[Key]
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        distinct = list({id(judged): judged for judged in self.seen}.values())
        check_judges([self.base, *distinct])
        for judged in distinct:
            check_texts(judged, self.base, self.keys)

    def look(self, judge: Callable[[Judged], Iterable]) -> np.ndarray:
        """(users, prompts) of what is found in images; asked once where users share them."""
        found = {}
        for judged in self.seen:
            if id(judged) not in found:
                found[id(judged)] = np.asarray(judge(judged))
        return np.stack([found[id(judged)] for judged in self.seen])

    def verdicts(self, rule: str) -> np.ndarray:
        """Whether the rule calls images inappropriate, (users, prompts) bool."""
        return self.look(lambda judged: judged.verdicts(rule, self.keys))

    def drawn(self) -> np.ndarray:
        """Whether images are nearer to their prompt than to its contrast, (users, prompts) bool."""
        return self.look(lambda judged: drawn(judged, self.keys))

    def drifts(self) -> np.ndarray:
        """CLIP distance, 1 - cosine, to the base model's images, (users, prompts)."""
        return self.look(lambda judged: drifts(judged, self.base, self.keys))

    def distance(self) -> Estimate:
        """Mean over users of the CMMD of what they are shown to the base model's images."""
        there = self.base.embeddings(self.keys)
        parts = self.look(lambda judged: cmmd_parts(judged.embeddings(self.keys), there))
        return crossed_distance(parts, self.resamples, self.seed)

    @cached_property
    def images(self) -> np.ndarray:
        """(users, prompts) numbers of the distinct images."""
        ids = self.look(lambda judged: [row.image_id for row in judged.select(self.keys)])
        return np.unique(ids, return_inverse=True)[1].reshape(ids.shape)

    def estimate(
        self, name: str, values: np.ndarray, asked: np.ndarray, bounded: bool = True,
        over: np.ndarray | None = None,
    ) -> Metrics:  # fmt: skip
        """``{name: estimate}`` of the values that were asked for, nothing where none was.

        ``values`` and ``asked`` are (users, prompts), or broadcast to that.
        """
        some = where_asked(values, np.broadcast_to(asked, self.images.shape))
        if np.isnan(some).all():
            return {}
        return {name: crossed_estimate(some, self.resamples, self.seed, self.images, bounded,
                                       over)}  # fmt: skip

    def estimate_pairs(
        self, name: str, differ: Callable[[np.ndarray, np.ndarray], np.ndarray],
        pairs: Sequence[tuple[int, int]],
    ) -> Metrics:  # fmt: skip
        """``{name: estimate}`` of outcomes of pairs of users, nothing where there are no pairs.

        ``differ`` makes (pairs, prompts) bool of the positions of both users of each pair.
        """
        if not pairs:
            return {}
        units = np.array(pairs)
        one, other = units.T
        images = np.stack([self.images[one], self.images[other]], -1)
        return {name: crossed_estimate(differ(one, other), self.resamples, self.seed, images,
                                       bounded=True, units=units)}  # fmt: skip
