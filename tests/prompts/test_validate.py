import dataclasses
from collections import Counter

import pytest

from pipeline.llm.replies import MAX_CHARACTERS, Fault
from pipeline.policy import SEXUAL_CATEGORIES
from pipeline.prompts.validate import Pair, PairLimits, find_fault, read_pair
from pipeline.prompts.words import Phrases, normalise, word_edits, word_jaccard, word_set
from pipeline.taxonomy import Category
from tests.prompts.malformed import GOOD, SAFE, UNSAFE, malformed

CATEGORY = Category(
    name="violence", definition="Red bursts.",
    concepts={"thornburst": "train", "spikeflare": "train", "razor nimbus": "test_unseen"},
)  # fmt: skip
LIMITS = PairLimits(min_words=3, max_words=12, min_similarity=0.5, max_edits=3, language="en")
FAULTS = {"refusal", "no_json", "too_long", "wrong_keys", "bad_text", "names_person", "length",
          "boilerplate", "language", "unsafe_lost_concept", "safe_kept_concept",
          "not_minimal"}  # fmt: skip


def fault_of(unsafe=UNSAFE, safe=SAFE, concept="thornburst", category=CATEGORY, foreign=(),
             **limits):  # fmt: skip
    limits = dataclasses.replace(LIMITS, **limits)
    return find_fault(
        Pair(unsafe, safe), concept, category.name, limits, foreign=Phrases(foreign),
        known=Phrases(category.all_concepts),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "pair"),
    [
        (GOOD, (UNSAFE, SAFE)),
        ('Sure!\n{"safe": " c ", "unsafe": "a \\n\\t b"} Done', ("a b", "c")),
        ('{"unsafe": "", "safe": "\\u00a0"}', ("", "")),
        (f"<think>Which? {{}}</think>{GOOD}", (UNSAFE, SAFE)),
        (GOOD + " " * (MAX_CHARACTERS - len(GOOD)), (UNSAFE, SAFE)),
    ],
)
def test_a_reply_gives_its_pair_with_white_space_tidied(reply, pair):
    assert read_pair(reply) == pair


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("", "no_json"),
        ("I'm sorry, I cannot do that", "refusal"),
        ('{"unsafe": "a', "no_json"),
        ('{"unsafe": %s, "safe": "b"}' % ("7" * 5_000), "no_json"),
        (f"<think>{GOOD}</think>", "no_json"),
        ('{"unsafe": "a", "safe": "b", "note": "c"}', "wrong_keys"),
        ('{"unsafe": "a", "safe": "b", "unsafe": "c"}', "wrong_keys"),
        ('{"unsafe": 1, "safe": "b"}', "wrong_keys"),
        ('{"unsafe": "a", "safe": null}', "wrong_keys"),
        ('{"unsafe": ["a"], "safe": "b"}', "wrong_keys"),
        ('{"unsafe": {"a": "b"}, "safe": "b"}', "wrong_keys"),
        ('{"unsafe": "a \\ud83d", "safe": "b"}', "bad_text"),
        ('{"unsafe": ' + "[" * 100_000 + "]" * 100_000 + ', "safe": "a"}', "too_long"),
        ('{"unsafe": ' + "[" * 9_000, "no_json"),
        (GOOD + " " * 2**20, "too_long"),
        (GOOD.replace("cup", "c" + "u" * 2**20), "too_long"),
    ],
)  # fmt: skip
def test_every_other_reply_gives_its_reason(reply, fault):
    found = read_pair(reply)
    assert found == fault
    assert isinstance(found, Fault)


def test_a_pair_that_satisfies_all_has_no_fault():
    assert fault_of() is None
    assert fault_of(concept="ThornBurst!") is None
    assert fault_of(concept="") is None
    assert fault_of(foreign=["inkzag", "red inkzag"]) is None


@pytest.mark.parametrize(
    ("unsafe", "safe", "fault"),
    [
        ("a red cup of Thornburst Spikeflare", SAFE, "names_person"),
        (UNSAFE, "a red star with Dora Cup", "names_person"),
        ("a thornburst", SAFE, "length"),
        (UNSAFE, "a cup", "length"),
        (UNSAFE, f"{SAFE} {'red ' * 8}", "length"),  # 14 words
        (UNSAFE, "", "length"),
        (UNSAFE, "sure, a red star with a cup", "boilerplate"),
        (UNSAFE, "unsafe version of a red star", "boilerplate"),
        (UNSAFE, "image prompt: a red star", "boilerplate"),
        (UNSAFE, "a red star with a [object]", "boilerplate"),
        (UNSAFE, "a red star with ...", "boilerplate"),
        ("a thornburst, but I can't draw", SAFE, "boilerplate"),
        (UNSAFE, "a red star with a \u202ecup", "boilerplate"),  # turns the direction of reading
        (UNSAFE, "a red star with a \x07 cup", "boilerplate"),
        ("ein roter Stern mit einem thornburst", SAFE, "language"),
        (UNSAFE, "une étoile rouge avec une tasse", "language"),
        ("a red star with a burst", SAFE, "unsafe_lost_concept"),
        ("a red star with a spikeflare", SAFE, "unsafe_lost_concept"),
        (UNSAFE, "a red star with a Spikeflare!", "safe_kept_concept"),
        (UNSAFE, "a red nimbus with a razor", "safe_kept_concept"),  # its words in any order
        (UNSAFE, UNSAFE, "safe_kept_concept"),
        (UNSAFE, "one blue boat at night", "not_minimal"),
    ],
)
def test_faults_of_a_pair(unsafe, safe, fault):
    found = fault_of(unsafe, safe)
    assert found == fault
    assert isinstance(found, Fault)


@pytest.mark.parametrize("other", ["cup", "cup red", "thornburst star"])
def test_concepts_of_other_categories_are_in_neither_prompt(other):
    assert fault_of(foreign=["inkzag", other]) == "other_category"


def test_a_concept_may_hold_one_of_another_category():
    told = {"unsafe": "a red thornburst cake", "safe": "a red lemon cake"}
    assert fault_of(**told, concept="thornburst cake", foreign=["thornburst"]) is None
    assert fault_of(**told, concept="thornburst cake", foreign=["lemon"]) == "other_category"


@pytest.mark.parametrize("form", ["thornbursts", "_thornburst_", "thornburst's", "Ｔhornburst"])
def test_other_forms_of_a_word_are_that_word(form):
    assert fault_of(safe=f"a red star with a {form}") == "safe_kept_concept"
    assert fault_of(unsafe=f"a red star with a {form}") is None


def test_a_longer_word_is_another():
    assert fault_of(unsafe="a red star with a thornburstling") == "unsafe_lost_concept"


def test_a_name_is_not_made_of_the_end_of_one_prompt_and_the_start_of_the_other():
    assert fault_of("A red thornburst in Spain", "A red cup in Spain") is None


def test_prompts_of_an_unknown_concept_may_be_the_same_but_for_punctuation():
    assert fault_of("a red star, with a cup", SAFE, concept="") == "identical"


def test_minors_are_blocked_in_a_category_of_sexual_content():
    category = Category(
        name=min(SEXUAL_CATEGORIES), definition="Blue dots.", concepts={"thornburst": "train"}
    )
    assert fault_of(safe="a child with a cup", category=category) == "sexualises_minors"


def test_limits_are_within():
    # 6 words each; 4 shared of 6: a, red, star, with | thornburst, cup; 1 edit
    assert word_jaccard(UNSAFE, SAFE) == pytest.approx(4 / 6)
    assert word_edits(UNSAFE, SAFE) == 1
    assert fault_of(min_words=6, max_words=6, min_similarity=4 / 6, max_edits=1) is None
    assert fault_of(min_words=7) == "length"
    assert fault_of(max_words=5) == "length"
    assert fault_of(min_similarity=0.67) == "not_minimal"
    assert fault_of(max_edits=0) == "not_minimal"


def test_the_same_words_in_another_order_are_not_minimal():
    # the words are the same but for the concept, 4 / 6, yet 5 of 6 places differ
    safe = "with a cup a star red"
    assert word_jaccard(UNSAFE, safe) == pytest.approx(4 / 6)
    assert word_edits(UNSAFE, safe) > LIMITS.max_edits
    assert fault_of(UNSAFE, safe) == "not_minimal"


def test_any_language_will_do_where_none_is_set():
    pair = "ein roter Stern mit einem thornburst", "ein roter Stern mit einem Becher"
    assert fault_of(*pair) == "language"
    assert fault_of(*pair, language=None) is None
    assert fault_of(*pair, language="de") is None


def test_ten_thousand_malformed_replies_never_raise_and_never_give_an_unfit_pair():
    fates, known = Counter(), Phrases(CATEGORY.all_concepts)
    for reply in malformed(10_000, GOOD):
        pair = read_pair(reply)
        fault = pair if isinstance(pair, Fault) else find_fault(
            pair, "thornburst", CATEGORY.name, LIMITS, known=known
        )  # fmt: skip
        fates[fault] += 1
        if fault is not None:
            assert isinstance(fault, Fault)
            continue
        for text in pair:
            text.encode("utf-8")
            assert text.isprintable()
            assert LIMITS.min_words <= len(text.split()) <= LIMITS.max_words
        assert "thornburst" in normalise(pair.unsafe)
        assert not {"thornburst", "spikeflare"} & word_set(pair.safe)
        assert word_jaccard(*pair) >= LIMITS.min_similarity
        assert word_edits(*pair) <= LIMITS.max_edits
    assert set(fates) == {None, *FAULTS}  # every reason comes up, and good pairs do too
    assert fates[None] > 500


def test_a_concept_kept_for_tests_is_in_no_prompt_to_train_on():
    told = "thornburst", CATEGORY.name, LIMITS
    phrases = {"known": Phrases(CATEGORY.all_concepts), "held_out": Phrases(["razor nimbus"])}
    pair = Pair("a red thornburst and a razor nimbus", "a red cup and a nimbus")
    assert find_fault(pair, *told, **phrases) == "held_out_concept"
    shorter = pair._replace(unsafe="a red thornburst and a nimbus")
    assert find_fault(shorter, *told, **phrases) is None


def test_phrases_of_different_meaning_cannot_be_mixed_up():
    """As `bench.prompts` once did: what it meant as foreign was looked for as held out."""
    phrases = Phrases(["cup"]), Phrases(["star"])
    with pytest.raises(TypeError, match="positional"):
        find_fault(Pair(UNSAFE, SAFE), "thornburst", CATEGORY.name, LIMITS, *phrases)
