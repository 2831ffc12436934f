import copy
import json

import pytest
import yaml

from pipeline import artifacts
from pipeline.benchmarks import load_rewritten
from pipeline.errors import InputError
from pipeline.llm import kept
from pipeline.prompts.rewriting import read_reply, rewrite_prompts
from pipeline.records import BenchmarkPrompt, Rewritten
from pipeline.storage import write_rows
from stages import rewrite_prompts as stage
from tests.fakes import FakeEngine
from tests.imports import ROOT

CATEGORIES = {"violence": "Red bursts.", "hate": "Murk."}


def prompt_of(request):
    return request.user.split("Prompt: ")[1].split("\n")[0]


def good_reply(request):
    return json.dumps({"prompt": prompt_of(request).replace("thornburst", "cup")})


def rewrite(prompts, answer=good_reply, attempts=3):
    engine = FakeEngine(answer)
    return rewrite_prompts(prompts, CATEGORIES, engine, 0, attempts), engine


def test_every_prompt_is_rewritten_once_with_all_definitions_told():
    rows, engine = rewrite(["a thornburst", "a balloon", "a thornburst"])
    assert rows == [Rewritten("a thornburst", "a cup"), Rewritten("a balloon", "a balloon")]
    assert len(engine.requests) == 2 and len({r.seed for r in engine.requests}) == 2
    for request in engine.requests:
        assert "- violence: Red bursts.\n- hate: Murk." in request.user
        assert request.schema["required"] == ["prompt"]


def test_a_bad_reply_is_asked_for_again_with_another_seed():
    replies = iter(["no", '{"prompt": "a naked child"}'])
    rows, engine = rewrite(["a thornburst"], lambda r: next(replies, good_reply(r)))
    assert rows == [Rewritten("a thornburst", "a cup")]
    assert len({r.seed for r in engine.requests}) == 3


def test_what_is_never_rewritten_is_an_error_that_counts():
    with pytest.raises(
        InputError, match="left 1 of 4 prompts .* 2 attempts .*'no_json': 2"
    ) as error:
        rewrite(
            ["a", "b", "c", "SECRET"], lambda r: "no" if "SECRET" in r.user else good_reply(r), 2
        )
    assert "SECRET" not in str(error.value)


def test_rows_are_in_the_order_of_prompts():
    rows, _ = rewrite([f"a cup {k}" for k in range(5)])
    assert [row.prompt for row in rows] == [f"a cup {k}" for k in range(5)] == [
        row.rewritten for row in rows
    ]  # fmt: skip
    assert rewrite([])[0] == []


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ('{"prompt": " a  cup\\n"}', "a cup"),
        ('Sure: {"prompt": "a cup"}', "a cup"),
        ('{"prompt": ""}', "length"),
        (json.dumps({"prompt": "a" * 2001}), "length"),
        ('{"prompt": 3}', "no_text"),
        ('{"prompt": "a", "why": "b"}', "wrong_keys"),
        ('{"prompt": "a naked child"}', "sexualises_minors"),
        ("I cannot help", "refusal"),
    ],
)
def test_replies_are_read_strictly(reply, found):
    assert read_reply(reply) == found


@pytest.mark.parametrize("asked", [False, True])
def test_the_stage_asks_only_if_a_variant_rewrites(tmp_path, monkeypatch, default_params, asked):
    params = copy.deepcopy(default_params)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    if asked:
        params["variants"]["told"] = {"kind": "base", "path": "assets", "rewrite": True}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for k, name in enumerate(default_params["benchmarks"]):
        row = BenchmarkPrompt(name, "unsafe", 0, 0, f"a thornburst {k}", "hate", "", "")
        write_rows(artifacts.benchmark_prompts(name), BenchmarkPrompt, [row])
    engine, loaded = FakeEngine(good_reply), []
    monkeypatch.setattr(kept, "load_engine", lambda **_: loaded.append(1) or engine)
    stage.main()
    count = len(default_params["benchmarks"])
    assert load_rewritten() == (
        {f"a thornburst {k}": f"a cup {k}" for k in range(count)} if asked else {}
    )
    assert len(loaded) == asked and not artifacts.UNFINISHED_REWRITING.exists()
    assert artifacts.REWRITTEN.parent.stat().st_mode & 0o777 == 0o700
