import dataclasses
import json

import pytest

from pipeline.errors import InputError
from pipeline.evaluate.judged import Judged
from pipeline.personal import llm_judge
from pipeline.personal.evaluate import make_yardstick
from pipeline.personal.judge import FIRST, SECOND, TIE, CasePair, pass_rate, win_rate
from pipeline.personal.llm_judge import LlmJudge, load_judge, parse_answer
from pipeline.records import BenchmarkImage, BenchmarkPrompt, EncodedImage
from pipeline.storage import write_rows
from tests.evaluate.examples import row
from tests.fakes import FakeEngine
from tests.personal.test_evaluate import SPACE, make_user
from tests.personal.test_judge import case

CATEGORIES = {"hate": "Chevrons.", "violence": "Bursts."}


def judge(answer, attempts=3, seed=0):
    return LlmJudge(FakeEngine(answer), CATEGORIES, seed, attempts)


def pictured(k=0, variant="secret", **told):
    """A case whose picture says "good" or "bad", under a file name that tells its method."""
    found = case(k, variant=variant, **told)
    word = b"bad" if found.row.scores["q16/inappropriate"] > 20 else b"good"
    return dataclasses.replace(found, picture=EncodedImage(word, f"{variant}-{k}.png"))


def verdict(request):
    return json.dumps({"verdict": "pass" if request.images[0].bytes == b"good" else "fail"})


def better(request):
    one, other = (image.bytes == b"good" for image in request.images)
    word = "equal" if one == other else "first" if one else "second"
    return f'```json\n{{"better": "{word}"}}\n```'


def test_a_judge_that_looks_lets_pass_what_it_finds_in_order():
    cases = [pictured(0), pictured(1, flagged=True), pictured(2)]
    asking = judge(verdict)
    assert asking.passes(cases) == [True, False, True]
    assert pass_rate(cases, asking, 50, 0).value == pytest.approx(2 / 3)
    assert not asking.faults


def test_a_fair_judge_finds_the_better_method_from_either_side():
    good, bad = ([pictured(k, name, flagged=name == "b") for k in range(3)] for name in "ab")
    assert judge(better).prefer([CasePair(good[0], bad[0]), CasePair(bad[0], good[0]),
                                 CasePair(bad[0], bad[0])]) == [FIRST, SECOND, TIE]  # fmt: skip
    assert win_rate(good, bad, judge(better), 50, 0)["wins"].value == 1
    assert win_rate(bad, good, judge(better), 50, 0)["losses"].value == 1


@pytest.mark.parametrize("word", ["first", "second"])
def test_a_position_bias_comes_out_as_ties(word):
    good, bad = ([pictured(k, name, flagged=name == "b") for k in range(3)] for name in "ab")
    found = win_rate(good, bad, judge(lambda _: json.dumps({"better": word})), 50, 0)
    assert {name: (e.value, e.n) for name, e in found.items()} == {
        "wins": (0, 3), "ties": (1, 3), "losses": (0, 3),
    }  # fmt: skip


def test_the_judge_is_told_the_user_and_never_the_method():
    asking = judge(lambda r: verdict(r) if "verdict" in r.user else better(r))
    one, other = pictured(variant="secret"), pictured(variant="hidden")
    asking.passes([one])
    win_rate([one], [other], asking, 50, 0)
    for request in asking.engine.requests:
        assert "Age: 30." in request.user
        assert "- hate: Chevrons." in request.user and "violence" not in request.user
        for word in ("secret", "hidden", "heldout"):
            assert word not in repr(request)
    passing, *comparing = asking.engine.requests
    assert "a cup" not in passing.user and len(passing.images) == 1
    assert all("The user asked for: a cup" in r.user and len(r.images) == 2 for r in comparing)


def test_a_user_without_bans_is_said_to_have_none():
    asking = judge(verdict)
    asking.passes([pictured(banned=())])
    assert "banned:\n- none\n" in asking.engine.requests[0].user


def test_failed_replies_are_counted_and_asked_again_with_a_new_seed():
    replies = iter(["no idea", '{"verdict": "maybe"}', '{"verdict": "pass"}'])
    asking = judge(lambda _: next(replies))
    assert asking.passes([pictured()]) == [True]
    assert asking.faults == {"no_json": 1, "unknown_answer": 1}
    assert len({r.seed for r in asking.engine.requests}) == 3


def test_seeds_are_of_user_picture_attempt_and_run():
    def seeds(seed, *cases):
        asking = judge(verdict, seed=seed)
        asking.passes(cases)
        return [r.seed for r in asking.engine.requests]

    found = seeds(0, pictured(0), pictured(1), pictured(0, user="v"))
    assert len(set(found)) == 3
    assert seeds(0, pictured(0)) == found[:1] != seeds(1, pictured(0))


def test_no_verdict_is_made_up_and_no_reply_is_shown():
    asking = judge(lambda r: verdict(r) if r.images[0].bytes == b"good" else "SECRET WORDS", 2)
    with pytest.raises(InputError, match="no valid answer for 1 of 2 .* 2 attempts") as error:
        asking.passes([pictured(0), pictured(1, flagged=True)])
    assert "'no_json': 2" in str(error.value)
    assert "SECRET" not in str(error.value)


def test_a_missing_picture_or_an_unknown_ban_is_an_error():
    with pytest.raises(InputError, match="heldout row 0 of user u has no picture to look at"):
        judge(verdict).passes([case()])
    with pytest.raises(InputError, match="no picture"):
        judge(better).prefer([CasePair(pictured(), case(variant="secret"))])
    with pytest.raises(InputError, match="user u bans 'spam', which is no category"):
        judge(verdict).passes([pictured(banned=("spam",))])


@pytest.mark.parametrize(
    ("reply", "fault"),
    [("pass", "no_json"), ("} {", "no_json"), ('{"verdict": "pass"', "no_json"),
     ('{"answer": "pass"}', "wrong_keys"), ('{"verdict": "pass", "why": ""}', "wrong_keys"),
     ('{"verdict": "fail", "verdict": "pass"}', "wrong_keys"), ("{}", "wrong_keys"),
     ('{"verdict": "Pass"}', "unknown_answer"), ('{"verdict": true}', "unknown_answer"),
     ('{"verdict": ["pass"]}', "unknown_answer"), ('{"verdict": {"pass": 1}}', "unknown_answer")],
)  # fmt: skip
def test_only_the_json_of_a_reply_counts(reply, fault):
    assert parse_answer(reply, "verdict", {"pass": True, "fail": False}) == fault


def test_text_around_the_answer_is_ignored():
    reply = 'It must not fail.\n{"verdict": "pass"}'
    assert parse_answer(reply, "verdict", {"pass": True, "fail": False}) == "pass"


def test_the_judge_of_the_stage_finds_its_pictures_by_their_ids(tmp_path, monkeypatch):
    """Folders as they are drawn: a variant's shards, and those of methods by their key."""
    rows = {"base": row("heldout", 0), "psa/hate": row("heldout", 1, flagged=True)}
    for place, seen in rows.items():
        word = b"bad" if seen.scores["q16/inappropriate"] > 20 else b"good"
        write_rows(tmp_path / place / "shard-0.parquet", BenchmarkImage, [BenchmarkImage(
            seen.image_id, "heldout", "unsafe", seen.row, 0, "p", "hate", "", "", 0, "v",
            EncodedImage(word, "v-0.png"),
        )])  # fmt: skip
    for name, text in CATEGORIES.items():
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\ndefinition: {text}\n")
    prompts = [BenchmarkPrompt("heldout", "unsafe", k, 0, "p", "hate", "", "") for k in (0, 1)]
    engine = FakeEngine(verdict)
    monkeypatch.setattr(llm_judge, "load_engine", lambda **told: told["a"] and engine)
    drawn = [tmp_path / "base", tmp_path / "psa"]
    found = load_judge({"a": 1}, tmp_path, list(CATEGORIES), prompts, drawn, 0, 2)
    assert found["judge"].engine is engine
    assert found["pictures"].keys() == {seen.image_id for seen in rows.values()}
    fewer = load_judge({"a": 1}, tmp_path, list(CATEGORIES), prompts[:1], drawn, 0, 2)
    assert fewer["pictures"].keys() == {rows["base"].image_id}
    assert load_judge(None, tmp_path, list(CATEGORIES), prompts, drawn, 0, 2) == {}
    yardstick = make_yardstick(
        Judged(list(rows.values())), SPACE, "safetydpo", prompts, 50, 0, **found
    )
    user = make_user("u", {"hate"}, "test_seen")
    cases = yardstick.cases([user], [yardstick.base])
    assert yardstick.judge.passes(cases) == [True, False]
