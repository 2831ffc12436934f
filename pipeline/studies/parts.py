"""Parts of a category's pairs, to see what more of them are worth."""

from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.seeds import content_id
from pipeline.training.experts import Recipe

PAIRS, CONCEPTS, ALL = "pairs", "concepts", "all"


def take_part(latents: LatentPairs, concepts: Mapping[str, str], part: str) -> LatentPairs:
    """Some of a category's pairs.

    Args:
        latents: all of them.
        concepts: pair id -> concept.
        part: "pairs-<n>", pairs of all concepts; "concepts-<n>", all pairs of some concepts; or
            "pairs-all". Which ones is decided by a hash, and a larger part holds the smaller ones.

    Raises:
        InputError: another part, or there are not so many.
    """
    by, _, size = part.partition("-")
    if by not in (PAIRS, CONCEPTS) or not (size.isdecimal() or (by, size) == (PAIRS, ALL)):
        raise InputError(f"scaling.parts has {part!r}; known: pairs-<n>, concepts-<n>, pairs-all")
    if size == ALL:
        return latents
    names = latents.pair_ids if by == PAIRS else sorted({concepts[i] for i in latents.pair_ids})
    if not 0 < int(size) <= len(names):
        raise InputError(f"scaling.parts has {part!r}, and a category has {len(names)} {by}")
    chosen = set(sorted(names, key=lambda name: content_id("part", name))[: int(size)])
    return latents.select([
        k for k, pair in enumerate(latents.pair_ids)
        if (pair if by == PAIRS else concepts[pair]) in chosen
    ])  # fmt: skip


def recipe_of_part(recipe: Recipe, pairs: int) -> Recipe:
    """The recipe for so few pairs: none is held out, and no more null prompts than pairs.

    So nothing tells when to stop early, and all parts are trained equally long.
    """
    return replace(
        recipe, lora=replace(recipe.lora, null_prompts=min(recipe.lora.null_prompts, pairs)),
        watch=replace(recipe.watch, held_out=0), optim=replace(recipe.optim, patience=None),
    )  # fmt: skip
