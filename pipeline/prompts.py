"""Unsafe/safe prompt pairs: the template, the parser and the validator every LLM goes through.

First stage of the data half (METHOD §1.1): for each concept of a category the LLM writes an unsafe
prompt and the safe prompt nearest to it. A reply that fails is asked again with a new seed, up to
a budget; every failure is counted by reason and none of its text is kept.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.llm import ChatRequest, Engine
from pipeline.policy import hard_block
from pipeline.records import PromptPair
from pipeline.seeds import content_id, seed_for
from pipeline.taxonomy import Category

SYSTEM = (
    "You write image prompts for the safety alignment of a text-to-image model. "
    "The model is trained to avoid the unsafe prompts. You answer with JSON only."
)
USER = """Category: {category}
Definition: {definition}
Concept: {concept}

Write one pair of image prompts.
"unsafe": a prompt for a picture that shows the concept; it names the concept.
"safe": the same prompt with as few words changed as possible, so that nothing of the category is left.
Answer as {{"unsafe": "...", "safe": "..."}}"""  # noqa: E501
TEMPLATE_VERSION = hashlib.sha256((SYSTEM + USER).encode()).hexdigest()[:12]
_REFUSAL = re.compile(r"\b(i (can(no|')t|am unable|won't)|i'm sorry|as an ai)\b", re.IGNORECASE)
_NON_WORD = re.compile(r"[^\w]+")


@dataclass(frozen=True)
class PairLimits:
    """What a pair must satisfy to be accepted; similarity is word-level Jaccard in [0, 1]."""

    min_words: int
    max_words: int
    min_similarity: float


def normalise(text: str) -> str:
    """Lower case, words only, single spaces: the form in which prompts are compared."""
    return _NON_WORD.sub(" ", text.lower()).strip()


def word_jaccard(first: str, second: str) -> float:
    """Shared words over all words of two texts, in [0, 1]."""
    a, b = set(normalise(first).split()), set(normalise(second).split())
    return len(a & b) / len(a | b) if a | b else 1.0


def request_pair(category: Category, concept: str, seed: int) -> ChatRequest:
    """The chat request for one pair of prompts of a concept."""
    user = USER.format(category=category.name, definition=category.definition, concept=concept)
    return ChatRequest(SYSTEM, user, seed)


def parse_pair(reply: str) -> tuple[str, str] | str:
    """The (unsafe, safe) prompts of a reply, or the reason it has none."""
    if _REFUSAL.search(reply):
        return "refusal"
    start, end = reply.find("{"), reply.rfind("}")
    if start < 0 or end < start:
        return "no_json"
    try:
        fields = json.loads(reply[start : end + 1])
    except json.JSONDecodeError:
        return "no_json"
    if not isinstance(fields, dict) or set(fields) != {"unsafe", "safe"}:
        return "wrong_keys"
    unsafe, safe = fields["unsafe"], fields["safe"]
    if not isinstance(unsafe, str) or not isinstance(safe, str):
        return "wrong_keys"
    return " ".join(unsafe.split()), " ".join(safe.split())


def find_fault(
    unsafe: str, safe: str, concept: str, category: Category, limits: PairLimits
) -> str | None:
    """Why a parsed pair is not acceptable, or None when it is."""
    reason = hard_block(f"{unsafe} {safe}", category.name)
    if reason:
        return reason
    for text in (unsafe, safe):
        if not limits.min_words <= len(text.split()) <= limits.max_words:
            return "length"
    if normalise(concept) not in normalise(unsafe):
        return "unsafe_lost_concept"
    words = set(normalise(safe).split())
    if any(set(normalise(c).split()) <= words for c in category.all_concepts):
        return "safe_kept_concept"
    if normalise(unsafe) == normalise(safe):
        return "identical"
    if word_jaccard(unsafe, safe) < limits.min_similarity:
        return "not_minimal"
    return None


def synthesize_prompts(
    category: Category, engine: Engine, *, pairs_per_concept: int, max_attempts: int,
    limits: PairLimits, leaked: Collection[str], base_seed: int, provenance: dict[str, str],
) -> tuple[list[PromptPair], dict[str, int]]:  # fmt: skip
    """Write ``pairs_per_concept`` accepted pairs for every training concept of a category.

    Args:
        category: its concepts of split ``train`` are asked for; held-out ones never are.
        engine: the language model.
        max_attempts: rounds of asking; a pair still missing after the last one is given up.
        leaked: normalised benchmark prompts; a pair that contains one is dropped.
        base_seed: from params; each request's seed also hashes concept, slot and attempt.
        provenance: ``engine``, ``model`` and ``revision`` columns.

    Returns:
        The pairs, ordered by concept and slot, and the count of failures by reason.

    Raises:
        InputError: when not one pair was accepted.
    """
    todo = [(c, slot) for c in category.train_concepts for slot in range(pairs_per_concept)]
    accepted: dict[tuple[str, int], PromptPair] = {}
    seen: set[str] = set()
    drops: Counter[str] = Counter()
    for attempt in range(max_attempts):
        missing = [key for key in todo if key not in accepted]
        if not missing:
            break
        requests = [
            request_pair(category, concept, seed_for(base_seed, category.name, concept, slot,
                                                     attempt))
            for concept, slot in missing
        ]  # fmt: skip
        for key, request, reply in zip(missing, requests, engine.generate(requests), strict=True):
            parsed = parse_pair(reply)
            fault = parsed if isinstance(parsed, str) else find_fault(
                *parsed, key[0], category, limits)  # fmt: skip
            if fault is None:
                fault = _find_repetition(parsed, seen, leaked)
            if fault is not None:
                drops[fault] += 1
                continue
            seen.update(normalise(text) for text in parsed[:1])
            accepted[key] = _make_row(category.name, key[0], parsed, request.seed, provenance)
    drops["gave_up"] = len(todo) - len(accepted)
    if not accepted:
        raise InputError(
            f"category {category.name!r}: the LLM gave no acceptable prompt pair in {len(todo)} "
            f"slots x {max_attempts} attempts (failures: {dict(drops)}); check prompts.model in "
            "params.yaml and the category's definition and concepts"
        )
    return [accepted[key] for key in todo if key in accepted], dict(drops)


def _find_repetition(pair: Sequence[str], seen: set[str], leaked: Collection[str]) -> str | None:
    unsafe, safe = (normalise(text) for text in pair)
    if unsafe in leaked or safe in leaked:
        return "in_benchmark"
    return "duplicate" if unsafe in seen else None


def _make_row(
    category: str, concept: str, pair: Sequence[str], seed: int, provenance: dict[str, str]
) -> PromptPair:
    unsafe, safe = pair
    return PromptPair(
        pair_id=content_id(category, concept, unsafe, safe), category=category, concept=concept,
        split="train", prompt_unsafe=unsafe, prompt_safe=safe, template_version=TEMPLATE_VERSION,
        seed=seed, **provenance,
    )  # fmt: skip
