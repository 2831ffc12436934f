import pytest

from pipeline.llm import kept as kept_replies
from pipeline.llm.chat import ChatRequest
from pipeline.llm.kept import KeptReplies, kept_engine
from tests.conftest import png
from tests.prompts.scripted import ScriptedEngine

ASKED = [ChatRequest("s", "u", 0, {"type": "object"}), ChatRequest("s", "u", 1)]


@pytest.fixture
def engine():
    return ScriptedEngine(lambda request: f"reply {request.seed} \N{SNOWMAN}")


def never():
    raise AssertionError("no model is needed")


def test_a_batch_is_asked_for_once_and_the_model_loaded_for_a_new_one_only(engine, tmp_path):
    first = KeptReplies(lambda: engine, tmp_path / "kept", "run")
    replies = first.generate(ASKED)
    assert replies == [f"reply {k} \N{SNOWMAN}" for k in (0, 1)]
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
        assert second.generate(ASKED) == [f"reply {k} \N{SNOWMAN}" for k in (0, 1)]
    assert loaded == [{"model": "m"}] and engine.batches == [2]
    assert not (tmp_path / "kept").exists()
    with kept_engine({}, {"revision": "2"}, tmp_path / "kept") as third:
        third.generate(ASKED)
    assert engine.batches == [2, 2]
