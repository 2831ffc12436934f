"""Texts as words: how prompts are compared with each other and searched for concepts."""

import re
import unicodedata
from collections.abc import Iterable, Set

from rapidfuzz.distance import Levenshtein

_NON_WORD = re.compile(r"[\W_]+")
_ENDING, _STEM = 3, 3  # letters: an ending at most, what is left of a word at least


def normalise(text: str) -> str:
    """Lower case, words only, single spaces: the form in which prompts are compared.

    Full-width and composed letters are as plain ones (NFKC).
    """
    return _NON_WORD.sub(" ", unicodedata.normalize("NFKC", text).lower()).strip()


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


class Phrases:
    """Phrases to look for in texts, by their words in any order and with any short ending.

    Only those are compared with a text whose longest word it may hold.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_word: dict[str, list[frozenset[str]]] = {}
        for words in filter(None, map(word_set, phrases)):
            self._by_word.setdefault(max(words, key=len), []).append(words)

    def in_text(self, text: str, but: Set[str] = frozenset()) -> bool:
        """Whether a text names one of them, other than such as the words ``but`` hold anyway."""
        stems = _stems(text)
        return any(
            words <= stems and not words <= but
            for stem in stems & self._by_word.keys() for words in self._by_word[stem]
        )  # fmt: skip


def names(text: str, phrase: str) -> bool:
    """Whether a text holds all words of a phrase, in any order and with any short ending."""
    return word_set(phrase) <= _stems(text)


def _stems(text: str) -> frozenset[str]:
    """The words of a text, and what is left of them without their last letters."""
    return frozenset(
        word[: len(word) - cut]
        for word in word_set(text) for cut in range(_ENDING + 1)
        if cut == 0 or len(word) - cut >= _STEM
    )  # fmt: skip
