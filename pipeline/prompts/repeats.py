"""Prompts that must not come again: of earlier pairs, or of benchmarks."""

from collections.abc import Iterable

from pipeline.prompts.duplicates import NearDuplicates
from pipeline.prompts.words import normalise

EXACT, NORMALISED, NEAR = "exact", "normalised", "near"


class Repeats:
    """Texts to compare others with.

    Args:
        near: word-level Jaccard from which a text nearly is another; None: only copies count, exact
            ones and normalised ones, which differ in case and punctuation.
    """

    def __init__(self, near: float | None, texts: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        self._normalised: set[str] = set()
        self._near = NearDuplicates(near) if near is not None else None
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Remember a text."""
        key = normalise(text)
        if key not in self._normalised and self._near is not None:
            self._near.add(key, text)
        self._normalised.add(key)
        self._exact.add(text)

    def find(self, text: str) -> str | None:
        """EXACT, NORMALISED, NEAR, or None for a text unlike all that were added."""
        if text in self._exact:
            return EXACT
        if normalise(text) in self._normalised:
            return NORMALISED
        return NEAR if self._near is not None and self._near.find(text) is not None else None
