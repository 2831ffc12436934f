"""Keeps the prompt pairs whose images are what they claim to be, and drops and counts the others.

Pairs are chosen by scores alone. The pictures of the chosen then pass from their shards into the
file as they come, so that memory does not grow with them.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.judges.raw import flat_scores
from pipeline.judges.rules import RULES, rules_for
from pipeline.pairs.histograms import Bins, count_scores
from pipeline.pairs.images import find_samples
from pipeline.pairs.judged import JudgedSample, ScoredImages, judge_sample, scores_of
from pipeline.policy import hard_block
from pipeline.records import SAFE, UNSAFE, DrawnImage, EncodedImage, PreferencePair, PromptPair
from pipeline.storage import stream_columns

SIDES = (UNSAFE, SAFE)
BINS = {
    "margin": Bins(-40, 40, 40), "unsafe_logit": Bins(-20, 20, 40), "similarity": Bins(-1, 1, 40),
    "prompt_similarity": Bins(-1, 1, 40),
}  # fmt: skip


@dataclass(frozen=True)
class PairGates:
    """What a pair must pass; similarities are cosines of CLIP embeddings, in [-1, 1]."""

    rule: str
    min_similarity: float  # of the two images
    max_similarity: float
    min_prompt_similarity: float  # of the two prompts
    max_prompt_similarity: float
    min_pairs: int


class KeptPair(NamedTuple):
    """A pair that passed, and the best of its draws."""

    prompt: PromptPair
    sample: JudgedSample


@dataclass(frozen=True)
class Selection:
    """The pairs that passed every gate, in prompt order, and what became of all."""

    kept: list[KeptPair]
    judge_spec: str  # JSON: the rule and judge versions behind the verdicts
    metrics: dict[str, object]
    histograms: list[dict[str, object]]  # of all draws' scores, before gating


def select_pairs(
    prompts: Sequence[PromptPair], images: Path, scored: ScoredImages, gates: PairGates
) -> Selection:
    """Gate the pairs of one category; of several draws the one with the largest margin is kept.

    ``metrics`` of the result are ``{candidates, kept, yield, drops, samples, ip_unsafe, ip_safe,
    ip}``. A drop has the reason of the draw that passed most gates (the first of equals).
    ``samples`` counts draws, all and those that passed. ``ip`` is the share of each side's images,
    of all draws and before gating, that a rule calls inappropriate, for every rule whose judges
    looked; ``ip_unsafe`` and ``ip_safe`` are those of ``gates.rule``.

    Args:
        images: folder of DrawnImage shards, of which no picture is read.

    Raises:
        InputError: an image or score is missing, or fewer than ``min_pairs`` pairs are left.
    """
    if gates.rule not in RULES:
        raise InputError(f"unknown rule {gates.rule!r}; known: {', '.join(RULES)}")
    rules = list(dict.fromkeys([gates.rule, *rules_for(scored.versions)]))
    kept, judged, drops, passed = [], [], Counter(), 0
    for prompt, samples in zip(prompts, find_samples(images, prompts), strict=True):
        looks = [judge_sample(sample, scored, rules) for sample in samples]
        blocked = hard_block(f"{prompt.prompt_unsafe} {prompt.prompt_safe}", prompt.category)
        faults = [_find_fault(blocked, look, gates) for look in looks]
        good = [look for look, fault in zip(looks, faults, strict=True) if fault is None]
        if good:
            kept.append(KeptPair(prompt, max(good, key=lambda look: look.margin)))
        else:
            drops[max(faults, key=lambda fault: fault.gate).reason] += 1
        passed += len(good)
        judged += looks
    category = prompts[0].category if prompts else Path(images).name
    _check_enough(category, len(prompts), len(kept), drops, gates)
    ip = _count_flagged(judged, rules)
    metrics = {
        "candidates": len(prompts), "kept": len(kept), "yield": len(kept) / len(prompts),
        "drops": dict(sorted(drops.items())),
        "samples": {"candidates": len(judged), "passed": passed},
        "ip_unsafe": ip[gates.rule][UNSAFE], "ip_safe": ip[gates.rule][SAFE], "ip": ip,
    }  # fmt: skip
    spec = json.dumps({"rule": gates.rule, "judges": dict(scored.versions)}, sort_keys=True)
    return Selection(kept, spec, metrics, _count_values(judged))


def _check_enough(
    category: str, wanted: int, kept: int, drops: Counter[str], gates: PairGates
) -> None:
    if kept < gates.min_pairs:
        raise InputError(
            f"{category}: {kept} of {wanted} pairs passed the gates, pairs.min_pairs "
            f"asks for {gates.min_pairs} (drops: {dict(drops)}); write more prompts, draw more "
            "samples or loosen the gates"
        )


class _Fault(NamedTuple):
    gate: int  # how far the draw came
    reason: str


def _find_fault(text_block: str | None, look: JudgedSample, gates: PairGates) -> _Fault | None:
    """The first gate that a draw does not pass: hard blocks first, so that all are counted."""
    reasons = (
        text_block,
        look.blocked,
        _outside(look.prompt_similarity, gates.min_prompt_similarity,
                 gates.max_prompt_similarity, "prompts_"),
        None if gates.rule in look.flagged[UNSAFE] else "unsafe_not_confirmed",
        "safe_not_confirmed" if gates.rule in look.flagged[SAFE] else None,
        _outside(look.similarity, gates.min_similarity, gates.max_similarity),
    )  # fmt: skip
    return next((_Fault(k, reason) for k, reason in enumerate(reasons) if reason), None)


def _outside(cosine: float, low: float, high: float, of: str = "") -> str | None:
    cosine = min(max(cosine, -1.0), 1.0)  # rounding takes it a little further
    if cosine < low:
        return f"{of}too_different"
    return f"{of}too_similar" if cosine > high else None


def _count_flagged(
    judged: Sequence[JudgedSample], rules: Sequence[str]
) -> dict[str, dict[str, float]]:
    """By rule and side, the share of images that it calls inappropriate."""
    flagged = Counter((rule, side) for look in judged for side in SIDES
                      for rule in look.flagged[side])  # fmt: skip
    return {rule: {side: flagged[rule, side] / len(judged) for side in SIDES} for rule in rules}


def _count_values(judged: Sequence[JudgedSample]) -> list[dict[str, object]]:
    values = {("unsafe_logit", side): [look.unsafe_logit[side] for look in judged]
              for side in SIDES}  # fmt: skip
    for score in ("margin", "similarity", "prompt_similarity"):
        values[score, "both"] = [getattr(look, score) for look in judged]
    return count_scores(values, BINS)


def stream_pairs(
    selection: Selection, images: Path, scored: ScoredImages
) -> Iterator[PreferencePair]:
    """The kept pairs as rows, their pictures read from the shards in passing.

    Both pictures of a draw lie side by side in a plan, so that few are held at once; in any other
    order it comes out the same. Raises InputError when a picture is not in the shards.
    """
    wanted = {image_id for pair in selection.kept for image_id in pair.sample.images}
    stream = (cells for cells in stream_columns(images, DrawnImage, ("image_id", "image"))
              if cells[0] in wanted)  # fmt: skip
    held: dict[str, EncodedImage] = {}
    for pair in selection.kept:
        while not held.keys() >= set(pair.sample.images):
            image_id, image = next(stream, (None, None))
            if image_id is None:
                raise InputError(f"{images} has changed meanwhile; run `dvc repro build_pairs`")
            held[image_id] = image
        pictures = {side: held.pop(getattr(pair.sample.images, side)) for side in SIDES}
        yield _make_row(pair, pictures, scored, selection.judge_spec)


def _make_row(
    pair: KeptPair, pictures: Mapping[str, EncodedImage], scored: ScoredImages, spec: str
) -> PreferencePair:
    prompt, sample = pair
    return PreferencePair(
        pair_id=prompt.pair_id, category=prompt.category, concept=prompt.concept,
        split=prompt.split, prompt_chosen=prompt.prompt_safe, prompt_rejected=prompt.prompt_unsafe,
        image_chosen=pictures[SAFE], image_rejected=pictures[UNSAFE],
        scores_chosen=flat_scores(scores_of(sample.images.safe, scored)),
        scores_rejected=flat_scores(scores_of(sample.images.unsafe, scored)),
        similarity=sample.similarity, prompt_similarity=sample.prompt_similarity,
        margin=sample.margin, judge_spec=spec,
    )  # fmt: skip
