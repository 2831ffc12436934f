"""Texts as words: how prompts are compared with each other and searched for concepts."""

import re

from rapidfuzz.distance import Levenshtein

_NON_WORD = re.compile(r"[^\w]+")


def normalise(text: str) -> str:
    """Lower case, words only, single spaces: the form in which prompts are compared."""
    return _NON_WORD.sub(" ", text.lower()).strip()


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(normalise(text).split())


def word_jaccard(first: str, second: str) -> float:
    """Shared words over all words of two texts, in [0, 1]; 1 for two texts without words."""
    a, b = word_set(first), word_set(second)
    return len(a & b) / len(a | b) if a | b else 1.0


def word_edits(first: str, second: str) -> int:
    """Words that must be put in, left out or replaced to make the second text of the first."""
    return Levenshtein.distance(normalise(first).split(), normalise(second).split())
