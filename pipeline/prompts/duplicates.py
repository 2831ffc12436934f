"""Prompts that are nearly the same as an earlier one, found without comparing all with all."""

from array import array
from collections.abc import Set
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from pipeline.prompts.words import word_set

BITS = 64  # of a sketch
_ROUNDING = 1e-9  # a share times a count may come out a little below the whole number it is


@dataclass
class _SameSize:
    """Texts with the same number of different words, in the order they came."""

    places: list[int] = field(default_factory=list)  # among all texts
    sketches: array = field(default_factory=lambda: array("Q"))


class NearDuplicates:
    """Texts by key, searched for the earliest that is like another text.

    Likeness is ``word_jaccard``, and the search is exact: nothing like enough is missed, nothing
    else is found. A sketch of 64 bits is kept of every text, in which each of its words flips one,
    so that two sketches differ in no more bits than their texts in words. One pass over the
    sketches leaves a handful of texts to compare: 100,000 take 9 s and 130 MiB. MinHash LSH does
    worse on prompts, which share much of their wording: 29 s, 1.2 GiB, and it may miss some.

    Args:
        similarity: the least likeness that is found, in (0, 1]; ValueError otherwise.
    """

    def __init__(self, similarity: float) -> None:
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity must be in (0, 1], not {similarity}")
        self._similarity = similarity
        # of two texts' words, those that both have counted twice, how many may be in one only
        self._differing = (1 - similarity) / (1 + similarity)
        self._keys: list[str] = []
        self._texts: list[Set[str]] = []
        self._by_size: dict[int, _SameSize] = {}

    def add(self, key: str, text: str) -> None:
        """Have a text found by this key."""
        words = word_set(text)
        same = self._by_size.setdefault(len(words), _SameSize())
        same.places.append(len(self._texts))
        same.sketches.append(_sketch(words))
        self._keys.append(key)
        self._texts.append(words)

    def find(self, text: str) -> str | None:
        """The key of the earliest text that is like this one, or None."""
        words = word_set(text)
        sketch = np.uint64(_sketch(words))
        found = len(self._texts)
        for size, same in self._by_size.items():
            differing = int(self._differing * (len(words) + size) + _ROUNDING)
            if abs(len(words) - size) > differing:
                continue
            bits = np.bitwise_count(np.frombuffer(same.sketches, np.uint64) ^ sketch)
            near = (same.places[k] for k in np.flatnonzero(bits <= differing))
            found = min(found, next((p for p in near if self._alike(words, p)), found))
        return self._keys[found] if found < len(self._keys) else None

    def _alike(self, words: Set[str], place: int) -> bool:
        shared, either = len(words & self._texts[place]), len(words | self._texts[place])
        return not either or shared / either >= self._similarity


def _sketch(words: Set[str]) -> int:
    sketch = 0
    for word in words:
        sketch ^= 1 << crc32(word.encode(errors="surrogatepass")) % BITS
    return sketch
