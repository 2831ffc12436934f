import pytest

from pipeline.llm.chat import ChatRequest
from pipeline.llm.replies import MAX_CHARACTERS, Fault, ask, read_object

KEYS = ("unsafe", "safe")
GOOD = '{"unsafe": "a thornburst", "safe": "a cup"}'
FIELDS = {"unsafe": "a thornburst", "safe": "a cup"}


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        '{"safe": "a cup",\n "unsafe": "a thornburst"}',
        f"Sure! Here it is:\n```json\n{GOOD}\n```\nI can't do more.",
        f"<think>The user wants {{braces}}, I cannot tell why.</think>\n{GOOD}",
        f" \n<think>\n</think>{GOOD}",
        '{"unsafe": "a thorn\\u0062urst", "safe": "a cup"}',
    ],
)
def test_the_one_object_of_a_reply_is_read(reply):
    assert read_object(reply, KEYS) == FIELDS


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("", "no_json"),
        ("no braces here", "no_json"),
        ("null", "no_json"),
        ('["a", "b"]', "no_json"),
        (GOOD[:-1], "no_json"),
        (GOOD[:20], "no_json"),
        ("} {", "no_json"),
        (f"{GOOD} and {GOOD}", "no_json"),
        ('{"unsafe": "a\nb", "safe": "c"}', "no_json"),  # a control character, not escaped
        ('{"unsafe": %s, "safe": "a"}' % ("9" * 5_000), "no_json"),
        ('{"unsafe": ' + "[" * 9_000 + "]" * 9_000 + ', "safe": "a"}', "no_json"),
        ("I'm sorry, I cannot do that", "refusal"),
        ("I\N{RIGHT SINGLE QUOTATION MARK}m unable to", "refusal"),
        ("As an AI, I must decline: {", "refusal"),
        (GOOD.replace("a cup", "I cannot see"), None),  # words of a refusal, but an answer
        ("{}", "wrong_keys"),
        ('{"unsafe": "a"}', "wrong_keys"),
        ('{"unsafe": "a", "safe": "b", "note": "c"}', "wrong_keys"),
        ('{"unsafe": "a", "safe": "b", "safe": "c"}', "wrong_keys"),
        ('{"unsafe": "a", "unsafe": "b"}', "wrong_keys"),
        ('{"Unsafe": "a", "safe": "b"}', "wrong_keys"),
        ('{"unsafe": "a \\ud83d", "safe": "b"}', "bad_text"),
        ('{"unsafe": "a", "safe": {"b": ["\\udc00"]}}', "bad_text"),
        ('{"unsafe": "a \ud83d", "safe": "b"}', "bad_text"),
    ],
)
def test_every_other_reply_gives_its_reason(reply, fault):
    found = read_object(reply, KEYS)
    assert isinstance(found, dict) if fault is None else found == fault
    assert isinstance(found, Fault) == (fault is not None)


def test_a_fault_in_place_of_a_reply_is_its_reason():
    found = read_object(Fault("refusal"), KEYS)
    assert found == "refusal" and isinstance(found, Fault)
    assert read_object("refusal", KEYS) == "no_json"


def test_a_whole_surrogate_pair_is_a_character():
    found = read_object('{"unsafe": "\\ud83d\\ude00", "safe": "b"}', KEYS)
    assert found == {"unsafe": "\N{GRINNING FACE}", "safe": "b"}


@pytest.mark.parametrize(("spaces", "fault"), [(0, None), (1, "too_long"), (2**20, "too_long")])
def test_a_reply_has_a_longest_length(spaces, fault):
    reply = GOOD.ljust(MAX_CHARACTERS) + " " * spaces
    assert read_object(reply, KEYS) == (fault or FIELDS)


def test_values_within_keep_their_types_and_objects_become_tuples():
    found = read_object('{"unsafe": [1, true, null, 0.5], "safe": {"b": {}}}', KEYS)
    assert found == {"unsafe": [1, True, None, 0.5], "safe": (("b", ()),)}


class Scripted:
    """An engine whose replies are given by round."""

    def __init__(self, *rounds):
        self.rounds, self.requests = list(rounds), []

    def generate(self, requests):
        self.requests.append([r.user for r in requests])
        return self.rounds[len(self.requests) - 1]


def request(key, attempt, fault):
    return ChatRequest("", f"{key} {attempt} {fault}", seed=attempt)


def read(replies):
    return {key: Fault(reply) if reply.startswith("no") else reply.upper()
            for key, reply in replies.items()}  # fmt: skip


def test_asking_goes_in_rounds_until_every_key_has_its_answer():
    engine = Scripted(["no_json", "b", "no_json"], ["no_match", "c"], ["a"])
    answers = ask(engine, ["x", "y", "z"], request, read, max_attempts=5)
    assert answers.found == {"x": "A", "y": "B", "z": "C"}
    assert answers.faults == {"no_json": 2, "no_match": 1}
    assert engine.requests == [
        ["x 0 None", "y 0 None", "z 0 None"],
        ["x 1 no_json", "z 1 no_json"],
        ["x 2 no_match"],
    ]


def test_a_key_that_never_has_an_answer_is_left_out():
    engine = Scripted(["no_json", "b"], ["no_json"])
    answers = ask(engine, ["x", "y"], request, read, max_attempts=2)
    assert answers.found == {"y": "B"}
    assert answers.faults == {"no_json": 2}


def test_a_key_that_the_reader_passes_over_is_asked_again_without_a_fault():
    engine = Scripted(["a", "b"], ["b"])

    def first_only(replies):
        return dict(list(read(replies).items())[:1])

    answers = ask(engine, ["x", "y"], request, first_only, max_attempts=2)
    assert answers == ({"x": "A", "y": "B"}, {})
    assert engine.requests[1] == ["y 1 None"]


@pytest.mark.parametrize(("keys", "max_attempts"), [([], 3), (["x"], 0)])
def test_nothing_is_asked_without_keys_or_rounds(keys, max_attempts):
    engine = Scripted()
    assert ask(engine, keys, request, read, max_attempts) == ({}, {})
    assert engine.requests == []


def test_an_engine_that_loses_a_reply_is_an_error():
    with pytest.raises(ValueError):
        ask(Scripted(["a"]), ["x", "y"], request, read, max_attempts=1)


@pytest.mark.parametrize("depth", [300, 600, 900, 3000])
@pytest.mark.parametrize("nested", ['{"a":', '[{"a":', "["])
def test_no_depth_of_nesting_raises(depth, nested):
    closing = nested.replace('"a":', "").replace("{", "}").replace("[", "]")[::-1]
    reply = '{"unsafe": ' + nested * depth + "1" + closing * depth + ', "safe": "x"}'
    found = read_object(reply, KEYS)
    assert isinstance(found, dict) or found in ("no_json", "too_long")


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (
            f"I ponder {{x}} </think> {GOOD}",
            {"unsafe": "a thornburst", "safe": "a cup"},
        ),  # the template opened the thought
        (f"<think> maybe {GOOD}", "no_json"),  # cut off while thinking
        (f"<think>{GOOD}</think>", "no_json"),
    ],
)
def test_a_thought_is_no_answer(reply, found):
    assert read_object(reply, KEYS) == found
