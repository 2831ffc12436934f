"""Asks a language model for the pairs of a category's concepts, until they are acceptable.

First stage of the data half (METHOD §1.1): for each concept the model writes unsafe prompts, and to
each the safe prompt nearest to it. A reply that fails is asked for again with a new seed, up to a
budget; every failure is counted by reason and none of its text is kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest, Engine
from pipeline.llm.replies import Fault, ask
from pipeline.progress import progress_bar
from pipeline.prompts import check
from pipeline.prompts.finished import Batch, Finished, split_evenly
from pipeline.prompts.review import Review
from pipeline.prompts.template import ADVICE, FEEDBACK, request_pair, template_version
from pipeline.prompts.validate import Pair, read_pair
from pipeline.prompts.words import word_edits, word_jaccard
from pipeline.records import PromptPair
from pipeline.seeds import content_id, seed_for

Slot = tuple[str, int]  # a concept, and which of its pairs


@dataclass(frozen=True)
class Asking:
    """How pairs are asked for."""

    pairs_per_concept: int
    concepts_at_once: int  # asked for together, and kept together
    max_attempts: int  # rounds; a pair still missing after the last one is given up
    feedback: bool  # say what was wrong when asking again
    self_check: bool  # have the model judge its pairs, too

    @property
    def template_version(self) -> str:
        """A hash of what the model is told."""
        advice = [FEEDBACK, sorted(ADVICE.items())] if self.feedback else []
        checks = [check.SYSTEM, check.USER] if self.self_check else []
        return template_version(*advice, *checks)


def synthesize_prompts(
    engine: Engine, asking: Asking, review: Review, finished: Finished, *, base_seed: int,
    provenance: Mapping[str, str],
) -> tuple[list[PromptPair], dict[str, object]]:  # fmt: skip
    """Write the pairs of every training concept of a category.

    Args:
        engine: the language model.
        review: the rules, for a category; its concepts of split ``train`` are asked for, held-out
            ones never.
        finished: where finished batches are kept, and found again after a kill.
        base_seed: from params; each request's seed also hashes concept, slot and attempt.
        provenance: ``engine``, ``model`` and ``revision`` columns.

    Returns:
        The pairs, ordered by concept and slot, and what ``summarize`` says of them.

    Raises:
        InputError: when not one pair was accepted, or the engine fails.
    """
    concepts = review.category.train_concepts
    pairs: list[PromptPair] = []
    faults: Counter[str] = Counter()
    with progress_bar(len(concepts), review.category.name, "concept") as progress:
        for number, batch in enumerate(split_evenly(concepts, asking.concepts_at_once)):
            done = finished.load(number)
            if done is None or not all(_still_fits(row, review) for row in done.pairs):
                done = _ask_batch(batch, engine, asking, review, base_seed, provenance)
                finished.save(number, done)
            else:
                for row in done.pairs:
                    review.remember(Pair(row.prompt_unsafe, row.prompt_safe))
                review.unread.update(done.unread)
            pairs += done.pairs
            faults.update(done.faults)
            progress.update(len(batch))
    if not pairs:
        raise InputError(
            f"category {review.category.name!r}: the LLM gave no acceptable prompt pair for "
            f"{len(concepts)} concepts x {asking.pairs_per_concept} in {asking.max_attempts} "
            f"attempts (failures: {dict(faults)}); check llm.model in params.yaml and the "
            "category's definition and concepts"
        )
    wanted = len(concepts) * asking.pairs_per_concept
    return pairs, summarize(pairs, faults, wanted, concepts)


def _still_fits(row: PromptPair, review: Review) -> bool:
    """Whether a pair of an earlier run passes the rules as they are now."""
    return review.find_fault(Pair(row.prompt_unsafe, row.prompt_safe), row.concept) is None


def _ask_batch(
    concepts: Sequence[str], engine: Engine, asking: Asking, review: Review, base_seed: int,
    provenance: Mapping[str, str],
) -> Batch:  # fmt: skip
    category, seeds = review.category, {}  # seeds: of each slot's last request
    unread = review.unread.copy()

    def request(slot: Slot, attempt: int, fault: Fault | None) -> ChatRequest:
        seeds[slot] = seed_for(base_seed, category.name, *slot, attempt)
        return request_pair(category, slot[0], seeds[slot], fault if asking.feedback else None)

    def read(replies: Mapping[Slot, str]) -> dict[Slot, Pair | Fault]:
        parsed = {slot: read_pair(reply) for slot, reply in replies.items()}
        return review.judge(parsed, concept_of=lambda slot: slot[0])

    slots = [(c, k) for c in concepts for k in range(asking.pairs_per_concept)]
    found, faults = ask(engine, slots, request, read, asking.max_attempts)
    told = {**provenance, "template_version": asking.template_version}
    rows = [
        make_row(category.name, slot[0], found[slot], seeds[slot], told)
        for slot in slots if slot in found
    ]  # fmt: skip
    return Batch(rows, dict(faults), dict(review.unread - unread))


def make_row(
    category: str, concept: str, pair: Pair, seed: int, provenance: Mapping[str, str]
) -> PromptPair:
    """A kept pair as a row of split ``train``; ``provenance`` holds its further columns."""
    return PromptPair(
        pair_id=content_id(category, concept, *pair), category=category, concept=concept,
        split="train", prompt_unsafe=pair.unsafe, prompt_safe=pair.safe, seed=seed, **provenance,
    )  # fmt: skip


def summarize(
    pairs: Sequence[PromptPair], faults: Mapping[str, int], wanted: int, concepts: Iterable[str]
) -> dict[str, object]:
    """Yield, drops by reason, and how minimal the edits are; of concepts nothing but ids.

    ``candidates`` are the pairs that were wanted, ``replies`` all that were read, ``concepts`` the
    kept pairs of each by its id.
    """
    kept = Counter(pair.concept for pair in pairs)
    texts = [(pair.prompt_unsafe, pair.prompt_safe) for pair in pairs]
    return {
        "candidates": wanted, "kept": len(pairs), "yield": len(pairs) / wanted,
        "replies": len(pairs) + sum(faults.values()), "drops": dict(sorted(faults.items())),
        "word_jaccard": float(np.mean([word_jaccard(*t) for t in texts])),
        "word_edits": float(np.mean([word_edits(*t) for t in texts])),
        "concepts": {content_id(concept): kept[concept] for concept in concepts},
    }  # fmt: skip
