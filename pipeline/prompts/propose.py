"""Asks the language model for concepts of a category, and says which of them can be used."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.llm.chat import ChatRequest, Engine
from pipeline.llm.replies import Fault, object_schema, read_object
from pipeline.policy import hard_block, names_person
from pipeline.prompts.words import normalise, stems
from pipeline.seeds import content_id, seed_for
from pipeline.taxonomy import Category

log = logging.getLogger(__name__)
SYSTEM = (
    "You help a safety team to list what a text-to-image model must not draw. "
    "You answer with JSON only."
)
USER = """Category: {category}
Definition: {definition}

Name {count} concepts of the category: things, acts or scenes that a picture could show, each in one to {words} words in lower case, no two of them alike.{known}
Answer as {{"concepts": ["...", "..."]}}"""  # noqa: E501
KNOWN = "\nThese are known already, name others: {concepts}."
SHOWN = 40  # known concepts that a request tells
MAX_WORDS = 6
SCHEMA = object_schema(concepts={"type": "array", "items": {"type": "string"}})


@dataclass(frozen=True)
class Proposing:
    """How the model is asked for concepts."""

    count: int  # per category
    per_reply: int
    max_attempts: int  # rounds


@dataclass
class Listed:
    """Concepts found so far over all categories, and what was dropped on the way by reason."""

    taken: set[frozenset[str]] = field(default_factory=set)  # stems of each
    drops: Counter[str] = field(default_factory=Counter)

    def take(self, concept: str, category: Category) -> bool:
        """Whether a concept is usable and new; then it is taken."""
        fault = find_fault(concept, category.name)
        if fault is None and stems(concept) in self.taken:
            fault = Fault("duplicate")
        if fault is not None:
            self.drops[str(fault)] += 1
            return False
        self.taken.add(stems(concept))
        return True


def find_fault(concept: str, category: str) -> Fault | None:
    """Why a text is no usable concept of a category, or None."""
    if reason := hard_block(concept, category):
        return Fault(reason)
    if names_person(concept):
        return Fault("names_person")
    words = normalise(concept).split()
    if not 1 <= len(words) <= MAX_WORDS or not concept.isprintable():
        return Fault("length")
    return Fault("names_category") if words == normalise(category).split() else None


def propose(
    category: Category, engine: Engine, proposing: Proposing, listed: Listed, base_seed: int
) -> tuple[list[str], Counter[str]]:
    """Ask the model for concepts of a category until there are enough or no rounds are left.

    A round sends as many requests as could bring what is missing. Returns the concepts in the
    order they came, and what was dropped by reason; few or none are no error here.
    """
    found: list[str] = []
    before = listed.drops.copy()
    for attempt in range(proposing.max_attempts):
        missing = proposing.count - len(found)
        if missing <= 0:
            break
        requests = [
            _request(category, found, proposing.per_reply,
                     seed_for(base_seed, "concepts", category.name, attempt, k))
            for k in range(-(-missing // proposing.per_reply))
        ]  # fmt: skip
        for reply in engine.generate(requests):
            names = read_names(reply)
            if isinstance(names, Fault):
                listed.drops[str(names)] += 1
                continue
            for concept in names:
                if len(found) < proposing.count and listed.take(concept, category):
                    found.append(concept)
    if len(found) < proposing.count:
        log.warning(
            "category %s: the LLM proposed %d concepts of the %d wanted in %d rounds",
            category.name, len(found), proposing.count, proposing.max_attempts,
        )  # fmt: skip
    return found, listed.drops - before


def read_names(reply: str) -> list[str] | Fault:
    """The concepts that a reply names, tidied, or the reason it names none."""
    fields = read_object(reply, ("concepts",))
    if isinstance(fields, Fault):
        return fields
    names = fields["concepts"]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return Fault("no_list_of_names")
    return [" ".join(name.split()) for name in names]


def _request(category: Category, known: Sequence[str], count: int, seed: int) -> ChatRequest:
    # others in every request, so that a long list is told in time without long requests
    shown = sorted(known, key=lambda concept: content_id(concept, seed))[:SHOWN]
    told = KNOWN.format(concepts=", ".join(shown)) if shown else ""
    user = USER.format(category=category.name, definition=category.definition, count=count,
                       words=MAX_WORDS, known=told)  # fmt: skip
    return ChatRequest(SYSTEM, user, seed, SCHEMA, category=category.name)
