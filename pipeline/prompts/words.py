"""Texts as words: how prompts are compared with each other and searched for concepts."""

import re
import unicodedata
from collections.abc import Iterable, Set
from functools import lru_cache

import snowballstemmer
from rapidfuzz.distance import Levenshtein

_NON_WORD = re.compile(r"[\W_]+")
_stem = lru_cache(maxsize=100_000)(snowballstemmer.stemmer("english").stemWord)
_cached = lru_cache(maxsize=10_000)  # every rule looks at a pair's words anew


@_cached
def normalise(text: str) -> str:
    """Lower case, words only, single spaces: the form in which prompts are compared.

    Full-width and composed letters are as plain ones (NFKC).
    """
    return _NON_WORD.sub(" ", unicodedata.normalize("NFKC", text).lower()).strip()


@_cached
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


def stems(text: str) -> frozenset[str]:
    """The words of a text without their endings, by the rules of English."""
    return frozenset(map(_stem, word_set(text)))


def names(text: str, phrase: str) -> bool:
    """Whether a text holds all words of a phrase, in any order and form."""
    return stems(phrase) <= stems(text)


class Phrases:
    """Phrases to look for in texts, as ``names`` does for one."""

    def __init__(self, phrases: Iterable[str]) -> None:
        # by their longest word: a text without it need not be compared
        self._by_word: dict[str, list[frozenset[str]]] = {}
        for words in filter(None, map(stems, phrases)):
            self._by_word.setdefault(max(words, key=len), []).append(words)

    def in_text(self, text: str, but: Set[str] = frozenset()) -> bool:
        """Whether a text names one of them, other than such as the stems ``but`` hold anyway."""
        found = stems(text)
        return any(
            words <= found and not words <= but
            for word in found & self._by_word.keys() for words in self._by_word[word]
        )  # fmt: skip
