"""Joins prompts, images and scores into preference pairs, and drops what is not what it claims."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.judges.rules import CLIP, Q16, RULES, is_inappropriate
from pipeline.policy import hard_block
from pipeline.records import SAFE, UNSAFE, DrawnImage, PreferencePair, PromptPair, Score
from pipeline.scores import ImageScores, flat_scores, scores_by_image


@dataclass(frozen=True)
class PairGates:
    """What a pair must pass; similarity is the cosine of the two CLIP image embeddings."""

    rule: str
    min_similarity: float
    max_similarity: float
    min_pairs: int


def build_pairs(
    prompts: Sequence[PromptPair], images: Sequence[DrawnImage], scores: Sequence[Score],
    gates: PairGates,
) -> tuple[list[PreferencePair], dict[str, object]]:  # fmt: skip
    """Preference pairs of one category and their yield.

    Returns:
        The pairs that passed every gate, in prompt order, and ``{candidates, kept, yield, drops,
        ip_unsafe, ip_safe}``: drops by reason, and the share of each side that the rule calls
        inappropriate before gating.

    Raises:
        InputError: an image or score is missing, or fewer than ``min_pairs`` pairs are left.
    """
    by_side = {(i.pair_id, i.side): i for i in images}
    by_image = scores_by_image(scores)
    spec = _judge_spec(gates.rule, scores)
    kept: list[PreferencePair] = []
    drops: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    for prompt in prompts:
        sides = {side: _find_image(by_side, prompt.pair_id, side) for side in (SAFE, UNSAFE)}
        measured = {side: _find_scores(by_image, image) for side, image in sides.items()}
        unsafe_is_unsafe = is_inappropriate(gates.rule, measured[UNSAFE])
        safe_is_unsafe = is_inappropriate(gates.rule, measured[SAFE])
        verdicts.update({UNSAFE: unsafe_is_unsafe, SAFE: safe_is_unsafe})
        reason = _find_fault(prompt, measured, unsafe_is_unsafe, safe_is_unsafe, gates)
        if reason:
            drops[reason] += 1
        else:
            kept.append(_make_pair(prompt, sides, measured, spec))
    n = len(prompts)
    metrics = {
        "candidates": n, "kept": len(kept), "yield": len(kept) / n if n else 0.0,
        "drops": dict(sorted(drops.items())),
        "ip_unsafe": verdicts[UNSAFE] / n if n else 0.0,
        "ip_safe": verdicts[SAFE] / n if n else 0.0,
    }  # fmt: skip
    if len(kept) < gates.min_pairs:
        category = prompts[0].category if prompts else "an empty category"
        raise InputError(
            f"{category}: {len(kept)} of {n} pairs passed the gates, pairs.min_pairs asks for "
            f"{gates.min_pairs} (drops: {dict(drops)}); write more prompts or loosen the gates"
        )
    return kept, metrics


def _find_image(by_side: dict, pair_id: str, side: str) -> DrawnImage:
    if (pair_id, side) not in by_side:
        raise InputError(f"pair {pair_id} has no {side} image; run `dvc repro generate_images`")
    return by_side[pair_id, side]


def _find_scores(by_image: dict[str, ImageScores], image: DrawnImage) -> ImageScores:
    if image.image_id not in by_image:
        raise InputError(f"image {image.image_id} has no scores; run `dvc repro score_images`")
    return by_image[image.image_id]


def _find_fault(
    prompt: PromptPair, measured: dict[str, ImageScores], unsafe_is_unsafe: bool,
    safe_is_unsafe: bool, gates: PairGates,
) -> str | None:  # fmt: skip
    blocked = hard_block(f"{prompt.prompt_unsafe} {prompt.prompt_safe}", prompt.category)
    if blocked:
        return blocked
    if not unsafe_is_unsafe:
        return "unsafe_not_confirmed"
    if safe_is_unsafe:
        return "safe_not_confirmed"
    similarity = measured[UNSAFE][CLIP]["similarity"]
    if similarity < gates.min_similarity:
        return "too_different"
    return "too_similar" if similarity > gates.max_similarity else None


def _make_pair(prompt, sides, measured, spec: str) -> PreferencePair:
    def unsafe_logit(side: str) -> float:
        q16 = measured[side][Q16]
        return q16["inappropriate"] - q16["not_inappropriate"]

    return PreferencePair(
        pair_id=prompt.pair_id, category=prompt.category, concept=prompt.concept,
        split=prompt.split, prompt_chosen=prompt.prompt_safe, prompt_rejected=prompt.prompt_unsafe,
        image_chosen=sides[SAFE].image, image_rejected=sides[UNSAFE].image,
        scores_chosen=flat_scores(measured[SAFE]), scores_rejected=flat_scores(measured[UNSAFE]),
        similarity=measured[UNSAFE][CLIP]["similarity"],
        prompt_similarity=measured[UNSAFE][CLIP]["prompts"],
        margin=unsafe_logit(UNSAFE) - unsafe_logit(SAFE), judge_spec=spec,
    )  # fmt: skip


def _judge_spec(rule: str, scores: Sequence[Score]) -> str:
    """The rule and the judge versions behind the verdicts, as JSON.

    Raises InputError when one judge's scores come from two versions of it.
    """
    if rule not in RULES:
        raise InputError(f"unknown rule {rule!r}; known: {', '.join(RULES)}")
    versions: dict[str, str] = {}
    for row in scores:
        if versions.setdefault(row.judge, row.judge_version) != row.judge_version:
            raise InputError(
                f"scores of judge {row.judge!r} come from versions {versions[row.judge]} and "
                f"{row.judge_version}; run `dvc repro score_images` again"
            )
    return json.dumps({"rule": rule, "judges": versions}, sort_keys=True)
