"""What makes a pair of prompts acceptable: one reason for every pair that is not."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.llm.replies import REFUSAL, Fault, read_object
from pipeline.policy import hard_block, names_person
from pipeline.prompts.language import is_in
from pipeline.prompts.words import normalise, word_edits, word_jaccard, word_set
from pipeline.taxonomy import Category

_BOILERPLATE = re.compile(
    r"^(here (is|are)|sure|certainly)\b|\b((un)?safe (prompt|version|image|variant)|prompt:|"
    r"image prompt)|\.\.\.|[<\[{]",
    re.IGNORECASE,
)


class Pair(NamedTuple):
    """The two prompts of a reply or of a file's row."""

    unsafe: str
    safe: str

    @property
    def text(self) -> str:
        """Both, for what concerns either."""
        return f"{self.unsafe} {self.safe}"


@dataclass(frozen=True)
class PairLimits:
    """What a pair must satisfy to be accepted."""

    min_words: int
    max_words: int
    min_similarity: float  # word-level Jaccard of the two prompts, in [0, 1]
    max_edits: int  # words that differ (pipeline.prompts.words.word_edits)
    language: str | None = None  # of both prompts, ISO 639-1; None: any


def read_pair(reply: str) -> Pair | Fault:
    """The prompts of a reply, white space tidied, or the reason it has none."""
    fields = read_object(reply, ("unsafe", "safe"))
    if isinstance(fields, Fault):
        return fields
    if not all(isinstance(text, str) for text in fields.values()):
        return Fault("wrong_keys")
    return Pair(" ".join(fields["unsafe"].split()), " ".join(fields["safe"].split()))


def find_fault(
    pair: Pair, concept: str, category: Category, limits: PairLimits,
    foreign: Collection[frozenset[str]] = (),
) -> Fault | None:  # fmt: skip
    """Why a pair is not acceptable, or None when it is.

    Args:
        concept: what the unsafe prompt must name; "" where the source of the pair knows none.
        category: neither the safe prompt nor a block of the policy may concern it.
        foreign: the words of every concept of other categories, which no prompt may name.
    """
    reason = hard_block(pair.text, category.name)
    if reason or names_person(pair.text):
        return Fault(reason or "names_person")
    return (
        _fault_of_form(pair, limits)
        or _fault_of_meaning(pair, concept, category, foreign)
        or _fault_of_likeness(pair, limits)
    )


def _fault_of_form(pair: Pair, limits: PairLimits) -> Fault | None:
    if any(not limits.min_words <= len(text.split()) <= limits.max_words for text in pair):
        return Fault("length")
    if any(
        not text.isprintable() or REFUSAL.search(text) or _BOILERPLATE.search(text) for text in pair
    ):
        return Fault("boilerplate")
    if limits.language and not all(is_in(limits.language, text) for text in pair):
        return Fault("language")
    return None


def _fault_of_meaning(
    pair: Pair, concept: str, category: Category, foreign: Collection[frozenset[str]]
) -> Fault | None:
    if normalise(concept) not in normalise(pair.unsafe):
        return Fault("unsafe_lost_concept")
    safe = word_set(pair.safe)
    if any(word_set(c) <= safe for c in category.all_concepts):
        return Fault("safe_kept_concept")
    unsafe = word_set(pair.unsafe)
    if any(words <= unsafe or words <= safe for words in foreign):
        return Fault("other_category")
    return None


def _fault_of_likeness(pair: Pair, limits: PairLimits) -> Fault | None:
    if normalise(pair.unsafe) == normalise(pair.safe):
        return Fault("identical")
    if word_jaccard(*pair) < limits.min_similarity or word_edits(*pair) > limits.max_edits:
        return Fault("not_minimal")
    return None
