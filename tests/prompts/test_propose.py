import pytest

from pipeline.prompts.propose import Listed, Proposing, find_fault, propose, read_names
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
