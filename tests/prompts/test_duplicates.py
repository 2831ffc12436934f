import random

import pytest

from pipeline.prompts.duplicates import NearDuplicates
from pipeline.prompts.words import word_jaccard

STAR = "a red star on a beach with a cup at night"  # 9 different words


def of(texts, similarity=0.8):
    found = NearDuplicates(similarity)
    for key, text in texts.items():
        found.add(key, text)
    return found


@pytest.mark.parametrize(
    ("similarity", "found"),
    [(0.7, "star"), (8 / 10, "star"), (0.81, None), (1, None)],
)
def test_one_word_more_on_each_side_of_the_limit(similarity, found):
    # shared 8: a red star on beach with at night; all 10: those, cup and lamp
    text = "a red star on a beach with a lamp at night"
    assert word_jaccard(STAR, text) == 8 / 10
    assert of({"star": STAR}, similarity).find(text) == found


@pytest.mark.parametrize("similarity", [0.1, 0.5, 0.8, 1])
def test_copies_are_always_found(similarity):
    texts = {"star": STAR, "one": "boat", "none": "...", "script": "一只猫睡在钢琴上"}
    found = of(texts, similarity)
    assert found.find("A red star -- on a BEACH, with a cup at night!") == "star"
    assert [found.find(text) for text in texts.values()] == list(texts)


def test_a_text_without_words_is_like_no_other():
    assert of({"star": STAR}, 0.1).find("!") is None
    assert of({"none": "!"}, 0.1).find(STAR) is None
    assert of({"none": "!"}).find("") == "none"


def test_the_earliest_counts_even_before_an_exact_copy():
    near = f"{STAR} today"
    assert of({"near": near, "same": STAR}).find(STAR) == "near"
    assert of({"same": STAR, "near": near}).find(STAR) == "same"
    assert of({"first": STAR, "second": STAR}).find(STAR) == "first"


def test_what_is_looked_for_is_not_added():
    found = of({})
    assert found.find(STAR) is None
    assert found.find(STAR) is None
    found.add("star", STAR)
    assert found.find(STAR) == "star"


def test_half_of_a_surrogate_pair_does_no_harm():
    found = of({"half": "a \ud83d star"})
    assert found.find("a \ud83d star") == "half"


@pytest.mark.parametrize("similarity", [0.34, 0.5, 2 / 3, 0.75, 0.8, 0.9, 1])
@pytest.mark.parametrize("vocabulary", [12, 40, 400])
def test_the_same_is_found_as_by_comparing_all(similarity, vocabulary):
    rng = random.Random(vocabulary)
    words = [f"w{k}" for k in range(vocabulary)]
    texts: list[str] = []
    for _ in range(250):
        if texts and rng.random() < 0.5:
            text = rng.choice(texts).split()
            for _ in range(rng.randint(0, 4)):
                text[rng.randrange(len(text))] = rng.choice(words)
        else:
            text = rng.choices(words, k=rng.randint(1, 25))
        texts.append(" ".join(text))
    found = NearDuplicates(similarity)
    for k, text in enumerate(texts):
        like = (i for i, t in enumerate(texts[:k]) if word_jaccard(t, text) >= similarity)
        expected = next(like, None)
        assert found.find(text) == (None if expected is None else str(expected))
        found.add(str(k), text)


@pytest.mark.parametrize("similarity", [0, -0.5, 1.01, float("nan")])
def test_a_similarity_that_is_none_is_refused(similarity):
    with pytest.raises(ValueError, match="similarity must be in"):
        NearDuplicates(similarity)
