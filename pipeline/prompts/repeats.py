"""Prompts that must not come again: of earlier pairs, or of benchmarks."""

from collections.abc import Iterable

from pipeline.prompts.duplicates import NearDuplicates
from pipeline.prompts.words import normalise

EXACT, NEAR = "exact", "near"


class Repeats:
    """Texts to compare others with.

    Args:
        near: word-level Jaccard from which a text nearly is another; None: exact copies only,
            which may differ in case and punctuation.
    """

    def __init__(self, near: float | None, texts: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        self._near = NearDuplicates(near) if near is not None else None
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Remember a text."""
        key = normalise(text)
        if key not in self._exact and self._near is not None:
            self._near.add(key, text)
        self._exact.add(key)

    def find(self, text: str) -> str | None:
        """EXACT, NEAR, or None for a text unlike all that were added."""
        if normalise(text) in self._exact:
            return EXACT
        return NEAR if self._near is not None and self._near.find(text) is not None else None
