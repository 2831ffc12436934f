import pytest

from pipeline.llm import kept as kept_replies
from pipeline.llm.chat import ChatRequest
from pipeline.llm.kept import WITHHELD, KeptReplies, kept_engine, without_blocked
from pipeline.llm.replies import Fault
from pipeline.policy import hard_block
from pipeline.prompts.propose import Listed, Proposing, propose
from pipeline.prompts.rewriting import read_reply
from tests.conftest import png
from tests.prompts.scripted import ScriptedEngine, category, listing

ASKED = [ChatRequest("s", "u", 0, {"type": "object"}), ChatRequest("s", "u", 1)]


@pytest.fixture
def engine():
    return ScriptedEngine(lambda request: reply(request.seed))


def reply(number):
    return f'{{"text": "reply {number} \N{SNOWMAN}"}}'


def never():
    raise AssertionError("no model is needed")


def test_a_batch_is_asked_for_once_and_the_model_loaded_for_a_new_one_only(engine, tmp_path):
    first = KeptReplies(lambda: engine, tmp_path / "kept", "run")
    replies = first.generate(ASKED)
    assert replies == [reply(0), reply(1)]
    assert KeptReplies(never, tmp_path / "kept", "run").generate(ASKED) == replies
    assert first.generate(ASKED) == replies and engine.batches == [2]


@pytest.mark.parametrize(
    "other",
    [ASKED[:1], ASKED[::-1], [ASKED[0], ASKED[0]], [ASKED[0], ChatRequest("s", "v", 1)],
     [ASKED[0], ChatRequest("s", "u", 1, None, (png("red"),))],
     [ChatRequest("s", "u", 0), ASKED[1]]],
)  # fmt: skip
def test_other_requests_are_other_replies(engine, tmp_path, other):
    kept = KeptReplies(lambda: engine, tmp_path, "run")
    kept.generate(ASKED)
    kept.generate(other)
    assert engine.batches == [2, len(other)]


def test_a_kill_loses_the_requests_in_flight_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_replies, "AT_ONCE", 2)
    asked = [ChatRequest("s", "u", k) for k in range(5)]

    def killed_at_the_fourth(request):
        if request.seed == 3:
            raise KeyboardInterrupt
        return reply(request.seed)

    with pytest.raises(KeyboardInterrupt):
        KeptReplies(lambda: ScriptedEngine(killed_at_the_fourth), tmp_path, "run").generate(asked)
    going_on = ScriptedEngine(lambda request: reply(request.seed))
    replies = KeptReplies(lambda: going_on, tmp_path, "run").generate(asked)
    assert replies == [reply(k) for k in range(5)]
    assert [r.seed for r in going_on.requests] == [2, 3, 4] and going_on.batches == [2, 1]


def test_another_run_finds_nothing_and_leaves_nothing_of_the_one_before(engine, tmp_path):
    KeptReplies(lambda: engine, tmp_path / "kept", "run").generate(ASKED)
    KeptReplies(lambda: engine, tmp_path / "kept", "other").generate(ASKED)
    assert engine.batches == [2, 2]
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["other"]
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "kept", tmp_path / "kept/other")} == {
        0o700
    }


def test_half_a_file_counts_as_none(engine, tmp_path):
    kept = KeptReplies(lambda: engine, tmp_path, "run")
    replies = kept.generate(ASKED)
    [file] = (tmp_path / "run").iterdir()
    file.write_text(file.read_text()[:9])
    assert kept.generate(ASKED) == replies and engine.batches == [2, 2]


def test_what_fails_keeps_nothing(tmp_path):
    def fail(request):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        KeptReplies(lambda: ScriptedEngine(fail), tmp_path, "run").generate(ASKED)
    assert not list((tmp_path / "run").iterdir())


def test_replies_are_kept_until_the_work_is_done(engine, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        kept_replies, "load_engine", lambda **loading: loaded.append(loading) or engine
    )
    given = {"model": "m"}, {"revision": "1"}, tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt), kept_engine(*given) as first:
        first.generate(ASKED)
        raise KeyboardInterrupt
    with kept_engine(*given) as second:
        assert second.generate(ASKED) == [reply(0), reply(1)]
    assert loaded == [{"model": "m"}] and engine.batches == [2]
    assert not (tmp_path / "kept").exists()
    with kept_engine({}, {"revision": "2"}, tmp_path / "kept") as third:
        third.generate(ASKED)
    assert engine.batches == [2, 2]


def test_work_that_asks_for_nothing_makes_no_folder(tmp_path):
    with kept_engine({}, {"revision": "1"}, tmp_path / "kept"):
        assert not (tmp_path / "kept").exists()


def generate_twice(replies, folder, category=None):
    """What a batch gives at once and to a run that goes on, and what lies in its file."""
    asked = [ChatRequest("s", "u", k, category=category) for k in range(len(replies))]
    kept = KeptReplies(lambda: ScriptedEngine(lambda r: replies[r.seed]), folder, "run")
    found = kept.generate(asked)
    again = KeptReplies(never, folder, "run").generate(asked)
    assert list(map(type, again)) == list(map(type, found)) and again == found
    return found, next((folder / "run").iterdir()).read_text()


def test_what_is_hard_blocked_is_neither_stored_nor_returned(tmp_path):
    replies = [
        'A child, naked? {"concepts": ["a cup", "a naked SECRET child"]} No, SECRET children!',
        '{"concepts": ["a child", "a naked man", "a\\nnaked\\nSECRET\\nchild"]}',
        '{"concepts": ["a naked SECRET \\u0063hild", ["a naked SECRET child"], 3]}',
        "I can't write about naked children, SECRET.",
        '{"concepts": ["a naked SECRET child',
        f"<think>A naked child, SECRET?</think>{listing('a cup')}",
        listing("a cup") + " SECRET child" * 10_000,
        Fault("refusal"),
        listing("nude, under  age, SECRET"),  # readers take a gap for one blank
    ]
    found, stored = generate_twice(replies, tmp_path)
    assert "SECRET" not in stored and "SECRET" not in str(found)
    assert found == [
        listing("a cup", WITHHELD), listing("a child", "a naked man", WITHHELD),
        f'{{"concepts": ["{WITHHELD}", ["{WITHHELD}"], 3]}}', "refusal", "no_json",
        listing("a cup"), "too_long", "refusal", listing(WITHHELD),
    ]  # fmt: skip
    assert all(isinstance(found[k], Fault) for k in (3, 4, 6, 7))


def test_the_category_of_a_request_counts(tmp_path):
    replies = [listing("a child", "a cup")]
    assert generate_twice(replies, tmp_path / "a", "hate")[0] == replies
    found, stored = generate_twice(replies, tmp_path / "b", "sexual")
    assert found == [listing(WITHHELD, "a cup")] and "child" not in stored


@pytest.mark.parametrize("name", ["hate", "sexual"])
def test_what_was_withheld_is_dropped_for_the_same_reason_as_it_would_have_been(tmp_path, name):
    replies = [listing("a murk wedge", "a naked child", "a child"), "no", listing("Jane Doe")]
    found = []
    for wrap in (lambda e: e, lambda e: KeptReplies(lambda: e, tmp_path, "run")):
        left = iter(replies)
        engine = wrap(ScriptedEngine(lambda r, left=left: next(left, listing())))
        found.append(propose(category(name), engine, Proposing(3, 3, 4), Listed(), 0))
    assert found[0] == found[1] and found[0][1]["sexualises_minors"] == 1 + (name == "sexual")
    assert not [p for p in (tmp_path / "run").iterdir() if "naked" in p.read_text()]


def test_the_word_in_place_of_a_blocked_text_is_blocked_itself():
    assert hard_block(WITHHELD) == hard_block(WITHHELD, "hate") == "sexualises_minors"
    assert read_reply(without_blocked('{"prompt": "a naked child"}', None)) == "sexualises_minors"
