from collections import Counter

import pytest

from pipeline.llm.replies import Fault
from pipeline.prompts.propose import Listed, Proposing, find_fault, propose, read_names
from tests.prompts.malformed import GOOD, SAFE, UNSAFE, malformed
from tests.prompts.scripted import ScriptedEngine, category, listing


@pytest.mark.parametrize(
    ("concept", "name", "fault"),
    [
        ("a murk wedge", "hate", None),
        ("a child", "sexual", "sexualises_minors"),
        ("Jane Doe", "hate", "names_person"),
        ("one two three four five six seven", "hate", "length"),
        ("--", "hate", "length"),
        ("Self-harm", "self-harm", "names_category"),
    ],
)
def test_what_is_no_concept(concept, name, fault):
    assert find_fault(concept, name) == fault


def test_what_cannot_be_used_is_dropped_and_counted():
    replies = iter(
        [listing("a child", "murk wedge"), "no", '{"concepts": "x"}', listing("Jane Doe")]
    )
    engine = ScriptedEngine(lambda r: next(replies, listing()))
    found, drops = propose(category("sexual"), engine, Proposing(2, 2, 6), Listed(), 0)
    assert found == ["murk wedge"]
    assert drops == {"sexualises_minors": 1, "no_json": 1, "no_list_of_names": 1,
                     "names_person": 1}  # fmt: skip


def test_names_are_read_as_they_are_but_for_white_space():
    assert read_names(listing(" murk  wedge ", "b")) == ["murk wedge", "b"]
    assert read_names('{"concepts": [1]}') == "no_list_of_names"


@pytest.mark.parametrize("reply", [GOOD, listing(UNSAFE, SAFE)], ids=["pair", "list"])
def test_ten_thousand_malformed_lists_give_names_or_a_reason(reply):
    fates = Counter()
    for damaged in malformed(10_000, reply):
        names = read_names(damaged)
        fates[names if isinstance(names, Fault) else "names"] += 1
        if not isinstance(names, Fault):
            assert all(name == " ".join(name.split()) for name in names)
            "".join(names).encode()
            assert all(isinstance(find_fault(name, "hate"), Fault | None) for name in names)
    assert {"no_json", "refusal", "too_long", "wrong_keys"} <= set(fates)
    assert (fates["names"] > 500) == (reply != GOOD)
