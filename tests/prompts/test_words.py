import pytest

from pipeline.prompts.words import Phrases, names, normalise, word_edits, word_jaccard, word_set


def test_texts_are_compared_by_their_words_alone():
    assert normalise("  A red-hot STAR,\n on a beach! ") == "a red hot star on a beach"
    assert normalise("... !") == ""
    assert normalise("Ein Café am Fluß") == "ein café am fluß"


def test_a_text_has_a_set_of_words():
    assert word_set("A star, a cup") == {"a", "star", "cup"}
    assert word_set("?") == frozenset()


@pytest.mark.parametrize(
    ("first", "second", "jaccard"),
    [
        ("a red star", "A red cup!", 2 / 4),
        ("a red star", "star red a a", 1),  # neither order nor repeats count
        ("a red star", "two blue cups", 0),
        ("a red star with a thornburst", "a red star with a cup", 4 / 6),
        ("", "!", 1),
        ("a", "", 0),
    ],
)
def test_word_jaccard_by_hand(first, second, jaccard):
    assert word_jaccard(first, second) == word_jaccard(second, first) == jaccard


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [
        ("a red star", "A red star.", 0),
        ("a red star with a thornburst", "a red star with a cup", 1),
        ("a red star", "a very red star", 1),
        ("one two three", "two three four", 2),  # the first left out, the last put in
        ("a red star", "star red a", 2),
        ("a red star", "", 3),
    ],
)
def test_word_edits_by_hand(first, second, edits):
    assert word_edits(first, second) == word_edits(second, first) == edits


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("two spiked flares at night", "spike flare", True),  # "d" and "s" are endings
        ("flares with a spike", "spike flare", True),
        ("a spike at night", "spike flare", False),
        ("a flarelight with a spike", "spike flare", False),
        ("a spi and a flare", "spike flare", False),
        ("anything", "", True),
    ],
)
def test_a_phrase_is_named_by_its_words_in_any_order_and_form(text, phrase, found):
    assert names(text, phrase) == found
    assert Phrases(["ink zag", phrase]).in_text(text) == (found and phrase != "")


def test_phrases_find_what_each_of_them_would_be_found_as():
    phrases = [f"w{k} v{k % 7}" for k in range(40)] + ["w1", "!"]
    texts = [f"w{k} and v{(k * 3) % 7}" for k in range(45)]
    together = Phrases(phrases)
    for text in texts:
        assert together.in_text(text) == any(names(text, p) for p in phrases if p != "!")


def test_short_words_lose_no_letters():
    assert not names("a carp", "c") and not names("an ants", "an t")
