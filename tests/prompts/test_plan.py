import subprocess
import sys

from pipeline.prompts.plan import reckon
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
    assert not (tmp_path / "data/prompts").exists()


def test_help_says_what_the_stage_does():
    done = subprocess.run(
        [sys.executable, "-m", "stages.synthesize_prompts", "--help"], cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    for said in ("unsafe/safe prompt pairs", "--plan", "print the expected cost", "category"):
        assert said in done.stdout
