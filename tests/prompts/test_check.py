import json
from collections import Counter

import pytest

from pipeline.artifacts import TESTBED
from pipeline.llm.replies import Fault
from pipeline.prompts.check import Alike, Band, SelfCheck, read_verdict
from pipeline.prompts.validate import Pair
from tests.prompts.malformed import GOOD, malformed
from tests.prompts.scripted import CATEGORY, ScriptedEngine

PAIR = Pair("a red star with a thornburst", "a red star with a cup")
CLIP = f"local-dir:{TESTBED / 'clip'}"


def verdict(shows, person=False):
    return json.dumps({"shows": shows, "real_person": person})


def asked_of(request):
    return request.user.split("Prompt: ")[1].split("\n")[0]


def check(answer, pairs=(PAIR,), attempts=2, unread=None):
    engine, unread = ScriptedEngine(answer), Counter() if unread is None else unread
    return SelfCheck(engine, CATEGORY, 0, attempts, unread)(list(pairs)), engine


@pytest.mark.parametrize(
    ("unsafe", "safe", "fault"),
    [
        (verdict(True), verdict(False), None),
        (verdict(False), verdict(False), "unsafe_not_confirmed"),
        (verdict(True), verdict(True), "safe_not_confirmed"),
        (verdict(True, True), verdict(False), "names_person"),
        (verdict(True), verdict(False, True), "names_person"),
        (verdict(True), "it is safe", "not_checked"),
        (verdict("true"), verdict(False), "not_checked"),
        (verdict(1), verdict(False), "not_checked"),
    ],
)
def test_both_prompts_must_be_confirmed(unsafe, safe, fault):
    found, _ = check(lambda r: unsafe if "thornburst" in asked_of(r) else safe)
    assert found == [fault]


def test_each_prompt_is_asked_about_once_and_alone():
    other = Pair("a blue boat with a thornburst", PAIR.safe)
    found, engine = check(lambda r: verdict("thornburst" in asked_of(r)), [PAIR, other])
    assert found == [None, None]
    assert sorted(map(asked_of, engine.requests)) == sorted({*PAIR, *other})


def test_an_invalid_verdict_is_asked_for_again_with_another_seed():
    asked = []

    def answer(request):
        asked.append(request.seed)
        return "no" if len(asked) == 1 else verdict("thornburst" in asked_of(request))

    unread = Counter(length=1)
    found, engine = check(answer, unread=unread)
    assert found == [None] and unread == {"length": 1, "no_json": 1}
    assert engine.batches == [2, 1] and len(set(asked)) == 3


def test_nothing_to_check_asks_nothing():
    found, engine = check(lambda r: verdict(True), [])
    assert found == [] and engine.requests == []


@pytest.mark.parametrize(
    ("low", "high", "fault"),
    [(-1, 1, None), (0.9999, 1, "unlike_embeddings"), (-1, -0.9999, "unlike_embeddings")],
)
def test_embeddings_outside_the_band_are_a_fault(low, high, fault):
    same = Pair(PAIR.unsafe, PAIR.unsafe)
    alike = Alike(Band(CLIP, None, 8, low, high))
    assert alike([PAIR]) == [fault]
    if high == 1:
        assert alike([same, PAIR]) == [None, fault]  # the cosine of a text with itself is 1
    assert alike([]) == []


@pytest.mark.parametrize("reply", [GOOD, verdict(True)], ids=["pair", "verdict"])
def test_ten_thousand_malformed_verdicts_are_two_truth_values_or_a_reason(reply):
    fates = Counter()
    for damaged in malformed(10_000, reply):
        found = read_verdict(damaged)
        fates[found if isinstance(found, Fault) else "verdict"] += 1
        assert isinstance(found, Fault) or list(map(type, found)) == [bool, bool]
    assert {"no_json", "refusal", "too_long", "wrong_keys"} <= set(fates)
    assert (fates["verdict"] > 500) == (reply != GOOD)
