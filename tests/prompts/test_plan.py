import subprocess
import sys

import pytest
import yaml

from pipeline.errors import InputError
from pipeline.prompts.plan import print_plan, reckon
from pipeline.prompts.synthesize import Asking
from tests.imports import ROOT
from tests.prompts.scripted import CATEGORY

ASKING = Asking(pairs_per_concept=10, concepts_at_once=8, max_attempts=3, feedback=True,
                self_check=False)  # fmt: skip


def test_requests_and_tokens_by_hand():
    plan = reckon(CATEGORY, 20, ASKING)
    assert (plan.concepts, plan.pairs, plan.requests) == (20, 200, 300)
    assert plan.tokens_out == 300 * 60
    assert plan.tokens_in == 300 * 124  # 496 characters a request, four of them a token


def test_a_self_check_asks_twice_more_for_every_reply():
    asking = Asking(**{**ASKING.__dict__, "self_check": True})
    plan = reckon(CATEGORY, 20, asking)
    assert plan.requests == 300 + 600 and plan.tokens_out == 300 * 60 + 600 * 14


def test_the_stage_prints_its_plan_and_loads_and_writes_nothing(tmp_path):
    for name in ("params.yaml", "assets"):
        (tmp_path / name).symlink_to(ROOT / name)
    code = (
        "import runpy, sys; sys.argv[1:] = ['violence', '--plan']\n"
        "runpy.run_module('stages.synthesize_prompts', run_name='__main__')\n"
        "assert not {'torch', 'transformers', 'vllm', 'openai'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "violence: 6 concepts to train on, 60 pairs wanted" in done.stdout
    assert "assets/testbed/lm (transformers): about 90 requests" in done.stdout
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]


@pytest.fixture
def plan(tmp_path, default_params, monkeypatch, capsys):
    """What is printed for a category without concepts, under changed parameters."""

    def planned(concepts=(), prompts=(), own="{}"):
        text = f"name: violence\ndefinition: Red bursts.\nconcepts: {own}\n"
        (tmp_path / "violence.yaml").write_text(text)
        changed = {"taxonomy": {**default_params["taxonomy"], "folder": str(tmp_path)},
                   "concepts": {**default_params["concepts"], **dict(concepts)},
                   "prompts": {**default_params["prompts"], **dict(prompts)}}  # fmt: skip
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(default_params | changed))
        monkeypatch.chdir(tmp_path)
        print_plan("violence")
        return capsys.readouterr().out

    return planned


def test_concepts_of_a_file_are_counted(plan, tmp_path):
    (tmp_path / "c.csv").write_text(
        "concept,category,split\nthornburst,violence,train\nspikeflare,violence,val\n"
        "emberspur,violence,train\ngrimfold,hate,train\nringmote,violence,\n"
    )
    file = {"file": "c.csv", "watch": "c.csv", "val": 0, "test_unseen": 0}
    told = plan(file)
    assert told.startswith("violence: 3 concepts to train on, 30 pairs wanted")
    assert "violence: 2 concepts to train on" in plan(file | {"test_unseen": 0.999999})
    assert "violence: 1 concepts" in plan(file, own="{hoopsigh: train, orbwane: val}")


def test_a_file_without_concepts_of_the_category_is_refused(plan, tmp_path):
    (tmp_path / "c.csv").write_text("concept,category\ngrimfold,hate\n")
    with pytest.raises(InputError, match="no concept of category 'violence'"):
        plan({"file": "c.csv", "watch": "c.csv"})
    (tmp_path / "c.csv").write_text("concept,category\ngrimfold,violense\n")
    with pytest.raises(InputError, match="line 2: the category is none of hate, harassment, viol"):
        plan({"file": "c.csv", "watch": "c.csv"})


def test_concepts_that_the_model_must_propose_are_told(plan):
    told = plan({"count": 50, "per_reply": 20, "val": 0.1, "test_unseen": 0.1})
    assert "violence: 50 concepts are proposed first, in about 3 requests or more" in told
    assert "violence: 40 concepts to train on, 400 pairs wanted" in told
    assert "proposed" not in plan(own="{hoopsigh: train}")


def test_pairs_of_a_file_ask_the_model_for_checks_only(plan):
    own = "{hoopsigh: train}"
    told = plan(prompts={"source": "p.csv"}, own=own)
    assert told == "violence: pairs are taken from p.csv; no model is asked\n"
    told = plan(prompts={"source": "p.csv", "self_check": True}, own=own)
    assert told.endswith("taken from p.csv; the model checks both prompts of each pair\n")


def test_help_says_what_the_stage_does():
    done = subprocess.run(
        [sys.executable, "-m", "stages.synthesize_prompts", "--help"], cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    for said in ("unsafe/safe prompt pairs", "--plan", "print the expected cost", "category"):
        assert said in done.stdout
