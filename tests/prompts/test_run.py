import pytest

from pipeline.errors import InputError
from pipeline.llm import kept
from pipeline.prompts.run import make_prompts, make_rules
from pipeline.prompts.synthesize import Asking
from pipeline.records import PromptPair
from tests.prompts.scripted import CATEGORY, ScriptedEngine, good_reply

LIMITS = {"min_words": 3, "max_words": 12, "min_similarity": 0.5, "max_edits": 4, "language": None}
ASKING = Asking(pairs_per_concept=2, concepts_at_once=1, max_attempts=2, feedback=False,
                self_check=False)  # fmt: skip
TOLD = {"engine": "e", "model": "m", "revision": "r", "sampling": {"temperature": 1.0}}


def rules(**told):
    return make_rules(**LIMITS | {"near_duplicate": None, "embeddings": None} | told)


def make(folder, engine, *, source=None, asking=ASKING, own_rules=None, leaks=(), **told):
    return make_prompts(CATEGORY, source, lambda: engine, asking, own_rules or rules(), leaks,
                        folder=folder, base_seed=0, provenance=TOLD | told)  # fmt: skip


def test_pairs_are_written_with_the_columns_of_who_wrote_them(tmp_path):
    pairs, metrics = make(tmp_path, ScriptedEngine(good_reply))
    assert len(pairs) == metrics["kept"] == 4 and isinstance(pairs[0], PromptPair)
    assert {(p.engine, p.model, p.revision) for p in pairs} == {("e", "m", "r")}


@pytest.mark.parametrize(
    "changed",
    [{"leaks": ["another prompt"]}, {"own_rules": rules(max_edits=5)}, {"model": "n"},
     {"sampling": {"temperature": 0.5}}, {"asking": Asking(2, 1, 3, False, False)}],
)  # fmt: skip
def test_nothing_is_taken_over_from_a_run_with_other_settings(tmp_path, changed):
    make(tmp_path, ScriptedEngine(good_reply))
    again, other = ScriptedEngine(good_reply), ScriptedEngine(good_reply)
    make(tmp_path, again)
    make(tmp_path, other, **changed)
    assert not again.requests and len(other.requests) == 4


def test_what_an_earlier_run_kept_is_reviewed_by_the_rules_of_now(tmp_path):
    """A pair that a stricter policy would drop is asked for again, with its whole batch."""
    make(tmp_path, ScriptedEngine(good_reply))
    first, *_ = sorted(tmp_path.glob("*/batch-*.json"))
    first.write_text(first.read_text().replace("a red star", "a naked child"))
    engine = ScriptedEngine(good_reply)
    pairs, _ = make(tmp_path, engine)
    assert len(engine.requests) == 2 and len(pairs) == 4
    assert not any("naked" in p.prompt_unsafe for p in pairs)


def test_the_model_checks_its_pairs_and_those_of_a_file_if_it_is_asked_to(tmp_path):
    def answer(request):
        return '{"shows": true, "real_person": false}' if "real_person" in request.user else (
            good_reply(request))  # fmt: skip

    checking = Asking(2, 1, 1, False, True)
    with pytest.raises(InputError, match="'safe_not_confirmed': 4"):
        make(tmp_path, ScriptedEngine(answer), asking=checking)
    source = tmp_path / "pairs.csv"
    source.write_text("prompt_unsafe,prompt_safe,category,concept\n"
                      "a red thornburst,a red cup,violence,thornburst\n")  # fmt: skip
    with pytest.raises(InputError, match="'safe_not_confirmed': 1"):
        make(tmp_path / "kept", ScriptedEngine(answer), source=source, asking=checking)
    assert len(make(tmp_path / "none", None, source=source)[0]) == 1
    assert not (tmp_path / "none").exists()  # nothing was asked, so nothing is kept


def checked(unread):
    """Answers pairs, and asked about them first so, then with verdicts that confirm them."""

    def reply(request):
        if "real_person" not in request.user:
            return good_reply(request)
        if unread and "cup" in request.user:
            return unread.pop()
        shows = "thornburst" in request.user or "spikeflare" in request.user
        return f'{{"shows": {str(shows).lower()}, "real_person": false}}'

    return reply


def test_replies_of_the_check_that_are_no_verdict_are_counted_also_by_a_run_that_goes_on(tmp_path):
    checking, bad = Asking(2, 1, 1, False, True), ["no", "I can't", "no"]
    pairs, metrics = make(tmp_path, ScriptedEngine(checked([*bad])), asking=checking)
    assert len(pairs) == 4 and metrics["unread_verdicts"] == {"no_json": 2, "refusal": 1}
    assert make(tmp_path, ScriptedEngine(checked([])), asking=checking) == (pairs, metrics)
    assert "unread_verdicts" not in make(tmp_path, ScriptedEngine(good_reply))[1]
    source = tmp_path / "pairs.csv"
    source.write_text("prompt_unsafe,prompt_safe,category,concept\n"
                      "a red thornburst,a red cup,violence,thornburst\n")  # fmt: skip
    engine = ScriptedEngine(checked(["no"]))
    _, metrics = make(tmp_path / "kept", engine, source=source, asking=checking)
    assert metrics["unread_verdicts"] == {"no_json": 1}


def test_what_was_checked_of_a_file_before_a_kill_is_not_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "AT_ONCE", 2)
    checking, source = Asking(2, 1, 1, False, True), tmp_path / "pairs.csv"
    rows = [f"a red thornburst {k},a red cup {k},violence,thornburst\n" for k in range(3)]
    source.write_text("prompt_unsafe,prompt_safe,category,concept\n" + "".join(rows))

    def killed(request):
        if len(engine.requests) > 3:
            raise KeyboardInterrupt
        return checked([])(request)

    engine = ScriptedEngine(killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "kept", engine, source=source, asking=checking)
    going_on = ScriptedEngine(checked([]))
    pairs, _ = make(tmp_path / "kept", going_on, source=source, asking=checking)
    assert len(pairs) == 3 and len(going_on.requests) == 4
    other = ScriptedEngine(checked([]))
    make(tmp_path / "kept", other, source=source, asking=checking, model="n")
    assert len(other.requests) == 6


def test_a_finished_run_needs_no_model(tmp_path):
    expected = make(tmp_path, ScriptedEngine(good_reply))
    found = make_prompts(CATEGORY, None, lambda: 1 / 0, ASKING, rules(), (), folder=tmp_path,
                         base_seed=0, provenance=TOLD)  # fmt: skip
    assert found == expected


def test_the_model_is_loaded_after_all_else(tmp_path):
    """A CLIP model that is not there shows before minutes of loading."""
    band = {"clip": "local-dir:nowhere", "clip_pretrained": None, "batch": 1, "low": 0, "high": 1}
    with pytest.raises(InputError, match="judges.clip"):
        make_prompts(CATEGORY, None, lambda: 1 / 0, ASKING, rules(embeddings=band), (),
                     folder=tmp_path, base_seed=0, provenance=TOLD)  # fmt: skip


def test_a_language_that_cannot_be_told_is_refused_with_the_rules():
    with pytest.raises(InputError, match="prompts.language: 'xx' is not known"):
        rules(language="xx")
