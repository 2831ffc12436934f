import pytest

from pipeline.exports.card import dataset_card
from pipeline.exports.facts import Facts
from pipeline.exports.kinds import KINDS

YIELDS = {
    "hate": {"candidates": 10, "kept": 8, "yield": 0.8, "drops": {"too_similar": 2}},
    "violence": {"candidates": 4, "kept": 3, "yield": 0.75, "drops": {"too_different": 1}},
}


def facts(models=(("sd", "abc"),), samplers=({"steps": 50},), samples=1):
    return Facts(YIELDS, "safetydpo", {"q16": "v1"}, list(models), list(samplers), samples,
                 [("vllm", "writer", "def")])  # fmt: skip


def test_every_category_has_its_drops_by_reason():
    card = dataset_card(KINDS["dataset"], facts(), 11, 7, None)
    assert "| category | candidates | pairs | yield | too_different | too_similar |" in card
    assert "| hate | 10 | 8 | 0.800 | 0 | 2 |" in card
    assert "| violence | 4 | 3 | 0.750 | 1 | 0 |" in card
    assert "`writer`, revision `def`, engine `vllm`" in card
    assert "No licence was chosen" in card and "license:" not in card
    assert "a hash of 7 and" in card and "was drawn" not in card


def test_imported_pictures_have_no_seed_and_no_sampler():
    card = dataset_card(KINDS["dataset"], facts([("imported", "")], [{}]), 11, 0, "mit")
    assert "files that were imported" in card
    assert "Seeds" not in card and "Sampler" not in card
    assert "license: mit" in card and "No licence" not in card


def test_several_draws_are_told():
    assert "drawn 4 times" in dataset_card(KINDS["dataset"], facts(samples=4), 11, 0, None)


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1_000, "1K<n<10K"),
                                            (99_999, "10K<n<100K"), (10**7, "n>10M")])  # fmt: skip
def test_the_size_is_named_as_on_the_hub(rows, size):
    assert f"size_categories: {size}\n" in dataset_card(KINDS["dataset"], facts(), rows, 0, None)
