"""Which pairs of a batch are kept: every rule, the cheap ones first, whoever wrote the pairs."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from pipeline.llm.replies import Fault
from pipeline.prompts.repeats import NEAR, Repeats
from pipeline.prompts.validate import Pair, PairLimits, find_fault
from pipeline.prompts.words import Phrases
from pipeline.taxonomy import Category

Key = TypeVar("Key", bound=Hashable)
Check = Callable[[Sequence[Pair]], Sequence[Fault | None]]  # of many pairs at once


class Review:
    """The rules for the pairs of one category; remembers what it kept.

    Args:
        category: what the pairs are about.
        limits: see ``PairLimits``.
        benchmarks: prompts that no pair may hold.
        near: as of ``Repeats``, between the unsafe prompts of kept pairs.
        checks: further rules, for pairs without fault so far.
        unread: where the checks count replies of a model that are no verdict, by reason.
    """

    def __init__(
        self, category: Category, limits: PairLimits, benchmarks: Repeats, near: float | None,
        checks: Sequence[Check] = (), unread: Counter[str] | None = None,
    ) -> None:  # fmt: skip
        self.category, self.limits = category, limits
        self._known, self._foreign = Phrases(category.all_concepts), Phrases(category.others)
        self._held_out = Phrases(category.held_out_concepts)
        self._benchmarks, self._kept, self._checks = benchmarks, Repeats(near), checks
        self.unread = Counter() if unread is None else unread

    def find_fault(self, pair: Pair, concept: str) -> Fault | None:
        """Why a pair alone is not acceptable; see ``pipeline.prompts.validate``."""
        return find_fault(pair, concept, self.category.name, self.limits, known=self._known,
                          held_out=self._held_out, foreign=self._foreign)  # fmt: skip

    def remember(self, pair: Pair) -> None:
        """Count a pair as kept, as one of an earlier run."""
        self._kept.add(pair.unsafe)

    def judge(
        self, pairs: Mapping[Key, Pair | Fault], concept_of: Callable[[Key], str]
    ) -> dict[Key, Pair | Fault]:
        """Each pair that is kept, or the reason why not; those that are faults already stay so."""
        judged = dict(pairs)
        for key, pair in pairs.items():
            if not isinstance(pair, Fault):
                fault = self.find_fault(pair, concept_of(key))
                judged[key] = fault or pair
        for check in self._checks:
            left = [key for key, pair in judged.items() if not isinstance(pair, Fault)]
            faults = check([judged[key] for key in left])
            judged |= {key: fault for key, fault in zip(left, faults, strict=True) if fault}
        for key, pair in judged.items():
            if isinstance(pair, Fault):
                continue
            if fault := self._find_repetition(pair):
                judged[key] = fault
            else:
                self.remember(pair)
        return judged

    def _find_repetition(self, pair: Pair) -> Fault | None:
        for text in pair:
            if found := self._benchmarks.find(text):
                return Fault("near_benchmark" if found == NEAR else "in_benchmark")
        if found := self._kept.find(pair.unsafe):
            return Fault("near_duplicate" if found == NEAR else "duplicate")
        return None
