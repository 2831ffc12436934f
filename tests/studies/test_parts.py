import dataclasses

import pytest

from pipeline.errors import InputError
from pipeline.studies.parts import recipe_of_part, take_part
from pipeline.training.experts import Recipe

CONCEPTS = {"a": "one", "b": "one", "c": "two", "d": "three"}


def test_a_larger_part_holds_the_smaller_ones(tiny_latents):
    sizes = [take_part(tiny_latents, CONCEPTS, f"pairs-{n}").pair_ids for n in (1, 2, 3, 4)]
    assert [len(ids) for ids in sizes] == [1, 2, 3, 4]
    assert all(set(a) < set(b) for a, b in zip(sizes, sizes[1:], strict=False))
    assert take_part(tiny_latents, CONCEPTS, "pairs-all") is tiny_latents


def test_a_part_of_concepts_has_all_their_pairs(tiny_latents):
    for n in (1, 2, 3):
        ids = take_part(tiny_latents, CONCEPTS, f"concepts-{n}").pair_ids
        chosen = {CONCEPTS[i] for i in ids}
        assert len(chosen) == n
        assert ids == [i for i in "abcd" if CONCEPTS[i] in chosen]


@pytest.mark.parametrize(
    ("part", "message"),
    [("pairs-5", "a category has 4 pairs"), ("concepts-4", "a category has 3 concepts"),
     ("concepts-all", "known: pairs-<n>, concepts-<n>, pairs-all"), ("words-2", "known: pairs"),
     ("pairs-0", "a category has 4 pairs")],
)  # fmt: skip
def test_a_part_that_there_is_not_is_refused(tiny_latents, part, message):
    with pytest.raises(InputError, match=message):
        take_part(tiny_latents, CONCEPTS, part)


def test_few_pairs_are_all_trained_on_and_give_fewer_null_prompts(default_params):
    recipe = Recipe.of(default_params["experts"], seed=0)
    small = recipe_of_part(recipe, 10)
    assert (small.watch.held_out, small.lora.null_prompts) == (0, 10)
    assert recipe_of_part(recipe, 99).lora.null_prompts == 24
    assert dataclasses.replace(small, lora=recipe.lora, watch=recipe.watch) == recipe


def test_a_part_is_not_stopped_early_since_nothing_is_held_out_to_tell_when(default_params):
    recipe = Recipe.of(default_params["experts"], seed=0)
    patient = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, patience=2))
    assert recipe_of_part(patient, 10) == recipe_of_part(recipe, 10)
