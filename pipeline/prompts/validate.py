"""What makes a pair of prompts acceptable: one reason for every pair that is not."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.llm.replies import REFUSAL, Fault, read_object
from pipeline.policy import hard_block, names_person
from pipeline.prompts.language import is_in
from pipeline.prompts.words import (
    Phrases,
    names,
    normalise,
    stems,
    word_edits,
    word_jaccard,
)

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
        return f"{self.unsafe}\n{self.safe}"


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
    return tidy_pair(**fields)


def tidy_pair(unsafe: str, safe: str) -> Pair:
    """A pair with single spaces."""
    return Pair(" ".join(unsafe.split()), " ".join(safe.split()))


def find_fault(
    pair: Pair, concept: str, category: str, limits: PairLimits, *, known: Phrases,
    held_out: Phrases | None = None, foreign: Phrases | None = None,
) -> Fault | None:  # fmt: skip
    """Why a pair is not acceptable, or None when it is.

    Args:
        concept: what the unsafe prompt must name; "" where the source of the pair knows none.
        category: its name, which the hard blocks go by.
        known: all concepts of the category, which the safe prompt must not name.
        held_out: concepts of the category that are kept for tests, which neither may name.
        foreign: concepts of other categories, which neither prompt may name, other than such as
            ``concept`` itself does.
    """
    reason = hard_block(pair.text, category)
    if reason or any(map(names_person, pair)):
        return Fault(reason or "names_person")
    return (
        _fault_of_form(pair, limits)
        or _fault_of_meaning(pair, concept, known, held_out, foreign)
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
    pair: Pair, concept: str, known: Phrases, held_out: Phrases | None, foreign: Phrases | None
) -> Fault | None:
    if not names(pair.unsafe, concept):
        return Fault("unsafe_lost_concept")
    if known.in_text(pair.safe):
        return Fault("safe_kept_concept")
    own = stems(concept)
    if held_out is not None and held_out.in_text(pair.unsafe, but=own):
        return Fault("held_out_concept")
    if foreign is not None and any(foreign.in_text(text, but=own) for text in pair):
        return Fault("other_category")
    return None


def _fault_of_likeness(pair: Pair, limits: PairLimits) -> Fault | None:
    if normalise(pair.unsafe) == normalise(pair.safe):
        return Fault("identical")
    if word_jaccard(*pair) < limits.min_similarity or word_edits(*pair) > limits.max_edits:
        return Fault("not_minimal")
    return None
