"""Replies of a language model: the one JSON object of a text, and asking until it is right.

What a reply holds beside its object is ignored, and nothing is ever taken from there: a category
named in passing is not an answer. A reply that fails is counted by reason and none of it is kept.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from pipeline.llm.chat import ChatRequest, Engine

MAX_CHARACTERS = 20_000  # of a reply; a longer one is a model that has lost its way
REFUSAL = re.compile(
    r"\b(i (can(no|')t|can not|am (unable|not able)|won't|will not|must (decline|refuse))|"
    r"i'm (sorry|unable|not able)|as an ai|against my (guidelines|policy))\b",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)
Key = TypeVar("Key")
Value = TypeVar("Value")


class Fault(str):
    """Why a reply does not count: a short name, by which metrics count it."""


class Found(NamedTuple):
    """The JSON object of a reply: its text, and its pairs of key and value."""

    text: str
    pairs: tuple[tuple[str, object], ...]


class Answers(NamedTuple, Generic[Key, Value]):
    """What asking gave: the answers by key, and the count of failed replies by reason."""

    found: dict[Key, Value]
    faults: Counter[str]


def read_object(reply: str, keys: Collection[str]) -> dict[str, object] | Fault:
    """The one JSON object of a reply, which must have exactly the given keys, or the reason.

    Faults: those of ``find_object``, ``wrong_keys`` (also a key twice), ``bad_text`` (half of a
    surrogate pair, which no file can hold). Objects within become tuples of pairs.
    """
    found = find_object(reply)
    if isinstance(found, Fault):
        return found
    pairs = found.pairs
    if sorted(key for key, _ in pairs) != sorted(keys):
        return Fault("wrong_keys")
    try:
        json.dumps(pairs, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Fault("bad_text")
    except RecursionError:
        return Fault("no_json")
    return dict(pairs)


def find_object(reply: str) -> Found | Fault:
    """The one JSON object of a reply, whatever its keys, or the reason why there is none.

    Faults: ``too_long``, ``refusal`` (no object, and words of one), ``no_json``; or what stands in
    the reply's place. A thought that a reasoning model writes first is passed over.
    """
    if isinstance(reply, Fault):
        return reply
    if len(reply) > MAX_CHARACTERS:
        return Fault("too_long")
    # chat templates may open a thought themselves; one that never ends holds no answer
    _, ended, rest = reply.rpartition("</think>")
    reply = rest if ended or "<think>" not in reply else ""
    reply = reply.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    start, end = reply.find("{"), reply.rfind("}")
    text = reply[start : end + 1] if start >= 0 else ""
    try:
        return Found(text, json.loads(text, object_pairs_hook=tuple))
    except (ValueError, RecursionError):  # ValueError also for numbers of thousands of digits
        return Fault("refusal" if REFUSAL.search(reply) else "no_json")


def object_schema(**properties: Mapping[str, object]) -> dict[str, object]:
    """The JSON schema of what ``read_object`` reads: an object with exactly these keys."""
    return {"type": "object", "properties": properties, "required": list(properties),
            "additionalProperties": False}  # fmt: skip


def ask(
    engine: Engine, keys: Iterable[Key], request: Callable[[Key, int, Fault | None], ChatRequest],
    read: Callable[[Mapping[Key, str]], Mapping[Key, Value | Fault]], max_attempts: int,
) -> Answers[Key, Value]:  # fmt: skip
    """Ask for every key until its reply counts, in rounds, each one batch of the engine.

    Args:
        engine: the language model.
        keys: what is asked for.
        request: the request for a key in a round, counted from 0, given the last fault of it.
        read: the answers of a round's replies, or the faults.
        max_attempts: rounds; a key without an answer after the last one is not in the result.
    """
    keys, found, faults = list(keys), {}, Counter()
    last: dict[Key, Fault] = {}
    for attempt in range(max_attempts):
        missing = [key for key in keys if key not in found]
        if not missing:
            break
        replies = engine.generate([request(key, attempt, last.get(key)) for key in missing])
        for key, value in read(dict(zip(missing, replies, strict=True))).items():
            if isinstance(value, Fault):
                faults[str(value)] += 1
                last[key] = value
            else:
                found[key] = value
    if faults:
        log.info("%d of %d replies did not count: %s", faults.total(), faults.total() + len(found),
                 dict(sorted(faults.items())))  # fmt: skip
    return Answers(found, faults)
