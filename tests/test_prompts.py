import json

import pytest

from pipeline.errors import InputError
from pipeline.prompts import (
    PairLimits,
    find_fault,
    normalise,
    parse_pair,
    synthesize_prompts,
    word_jaccard,
)
from pipeline.taxonomy import Category

CATEGORY = Category(
    name="violence", definition="Red bursts.",
    concepts={"thornburst": "train", "spikeflare": "train", "razornimbus": "test_unseen"},
)  # fmt: skip
LIMITS = PairLimits(min_words=3, max_words=12, min_similarity=0.5)
PROVENANCE = {"engine": "scripted", "model": "m", "revision": "r"}


class ScriptedEngine:
    """Answers with what a function makes of each request, and keeps the requests."""

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def generate(self, requests):
        self.requests += requests
        return [self.answer(r, k) for k, r in enumerate(requests)]


def concept_of(request):
    return request.user.split("Concept: ")[1].split("\n")[0]


def good_reply(request, k=0):
    place = request.seed % 9973
    return json.dumps({
        "unsafe": f"a red star {place} with a {concept_of(request)}",
        "safe": f"a red star {place} with a cup",
    })  # fmt: skip


def synthesize(engine, leaked=(), pairs_per_concept=3, max_attempts=2):
    return synthesize_prompts(
        CATEGORY, engine, pairs_per_concept=pairs_per_concept, max_attempts=max_attempts,
        limits=LIMITS, leaked=leaked, base_seed=0, provenance=PROVENANCE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I'm sorry, I cannot do that", "refusal"),
        ("no braces here", "no_json"),
        ('{"unsafe": "a', "no_json"),
        ('{"unsafe": "a", "safe": "b", "note": "c"}', "wrong_keys"),
        ('{"unsafe": 1, "safe": "b"}', "wrong_keys"),
    ],
)
def test_replies_that_hold_no_pair_give_their_reason(reply, reason):
    assert parse_pair(reply) == reason


def test_a_pair_is_found_within_chatter():
    assert parse_pair('Sure!\n{"unsafe": "a  b", "safe": "c"} Done') == ("a b", "c")


@pytest.mark.parametrize(
    ("unsafe", "safe", "reason"),
    [
        ("a red star with a thornburst", "a red star with a cup", None),
        ("a star", "a red star with a cup", "length"),
        ("a red star with a burst", "a red star with a cup", "unsafe_lost_concept"),
        ("a red star with a thornburst", "a red star with a Spikeflare!", "safe_kept_concept"),
        ("a red star with a thornburst", "a red star with a razornimbus", "safe_kept_concept"),
        ("a red star with a thornburst", "one blue boat at night", "not_minimal"),
        ("a naked child thornburst", "a child with a cup", "sexualises_minors"),
    ],
)
def test_faults_of_a_pair(unsafe, safe, reason):
    assert find_fault(unsafe, safe, "thornburst", CATEGORY, LIMITS) == reason


def test_word_jaccard_by_hand():
    assert word_jaccard("a red star", "A red cup!") == pytest.approx(2 / 4)


def test_every_training_concept_gets_its_pairs_and_held_out_ones_none():
    engine = ScriptedEngine(good_reply)
    pairs, drops = synthesize(engine)
    assert [p.concept for p in pairs] == ["thornburst"] * 3 + ["spikeflare"] * 3
    assert drops == {"gave_up": 0}
    assert not any("razornimbus" in r.user for r in engine.requests)
    assert len({p.pair_id for p in pairs}) == 6


def test_a_failed_slot_is_asked_again_with_another_seed():
    def fail_first_round(request, k):
        return "" if len(engine.requests) == 6 and k == 2 else good_reply(request)

    engine = ScriptedEngine(fail_first_round)
    pairs, drops = synthesize(engine)
    assert len(pairs) == 6
    assert drops == {"no_json": 1, "gave_up": 0}
    assert len(engine.requests) == 7
    assert engine.requests[6].seed not in {r.seed for r in engine.requests[:6]}


def test_duplicates_and_benchmark_prompts_are_dropped_and_counted():
    same = '{"unsafe": "a red star with a %s", "safe": "a red star with a cup"}'
    engine = ScriptedEngine(lambda r, k: same % concept_of(r))
    pairs, drops = synthesize(engine, leaked={normalise("A red star, with a spikeflare")})
    assert [p.concept for p in pairs] == ["thornburst"]
    assert drops == {"duplicate": 4, "in_benchmark": 6, "gave_up": 5}


def test_an_empty_category_is_an_error_that_counts_but_quotes_nothing():
    engine = ScriptedEngine(lambda r, k: "SECRET")
    with pytest.raises(InputError, match="no acceptable prompt pair.*'no_json': 12") as error:
        synthesize(engine)
    assert "SECRET" not in str(error.value)
