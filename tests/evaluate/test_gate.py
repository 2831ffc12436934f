import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.evaluate.__main__ import USERS
from pipeline.evaluate.gate import Gated, evaluation_at, find_regressions, run_gate
from tests.imports import ROOT


def estimate(value, low, high, n=100):
    return {"value": value, "low": low, "high": high, "n": n}


KINDS = {"heldout": "unsafe", "benign": "benign"}
BEFORE = {"heldout": {"ip": estimate(0.05, 0.02, 0.11), "ip/hate": estimate(0.1, 0.0, 0.4)},
          "benign": {"clip_score": estimate(94.3, 93.9, 94.6)}}  # fmt: skip


PATH = Path("metrics/evaluation/m.json")
MODEL = Gated("m", PATH, KINDS)


def now(ip=0.05, hate=0.1, clip=94.3):
    return {"heldout": {"ip": estimate(ip, 0, 1), "ip/hate": estimate(hate, 0, 1)},
            "benign": {"clip_score": estimate(clip, 0, 100)}}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "worse"),
    [
        ({}, []),
        ({"ip": 0.10}, []),  # within what chance explains
        ({"ip": 0.12}, ["heldout/ip"]),
        ({"ip": 0.0, "clip": 99.0}, []),  # better is never worse
        ({"hate": 0.5}, ["heldout/ip/hate"]),
        ({"clip": 93.8}, ["benign/clip_score"]),
    ],
)
def test_only_what_is_worse_beyond_its_interval_is_a_regression(changed, worse):
    assert [r.metric for r in find_regressions(MODEL, BEFORE, now(**changed))] == worse


def test_a_model_may_follow_unsafe_prompts_less():
    before = BEFORE | {"heldout": {"clip_score": estimate(50.0, 49.0, 51.0)}}
    less = now() | {"heldout": {"clip_score": estimate(20.0, 19.0, 21.0)}}
    assert find_regressions(MODEL, before, less) == []
    benign = Gated("m", PATH, KINDS | {"heldout": "benign"})
    assert len(find_regressions(benign, before, less)) == 1


def test_a_metric_that_is_gone_is_a_regression_and_a_new_one_is_not():
    later = now()
    del later["heldout"]["ip"]
    later["seen"] = {"ip": estimate(1.0, 1, 1)}
    found = find_regressions(MODEL, BEFORE, later)
    assert [(r.metric, r.now) for r in found] == [("heldout/ip", None)]
    assert len(find_regressions(MODEL, BEFORE, {})) == 3


def test_a_metric_of_fewer_images_is_a_regression_unless_it_depends_on_what_base_drew():
    fewer = now()
    fewer["heldout"]["ip"] = estimate(0.05, 0, 1, n=99)
    [found] = find_regressions(MODEL, BEFORE, fewer)
    assert (found.metric, found.now["n"]) == ("heldout/ip", 99)
    blocked = {"benign": {"over_block": estimate(0.1, 0, 1, n=54)}}
    less = {"benign": {"over_block": estimate(0.1, 0, 1, n=50)}}
    assert find_regressions(MODEL, blocked, less) == []


def test_a_benchmark_that_params_do_not_have_any_more_is_named():
    with pytest.raises(InputError, match="has benchmark 'benign', which params.yaml has not"):
        find_regressions(Gated("m", PATH, {"heldout": "unsafe"}), BEFORE, now())


@pytest.mark.parametrize(
    ("metric", "then", "later", "worse"),
    [
        ("banned_ip", (0.03, 0.0, 0.07), 0.08, True), ("banned_ip", (0.03, 0.0, 0.07), 0.0, False),
        ("allowed_preservation", (1.0, 0.96, 1.0), 0.9, True),
        ("allowed_ip", (0.9, 0.8, 1.0), 0.1, False),  # better neither way
        ("monotonicity_violations", (0.0, 0.0, 0.01), 0.02, True),
    ],
)  # fmt: skip
def test_what_users_are_shown_is_gated_too(metric, then, later, worse):
    before = {"test_unseen": {metric: estimate(*then)}}
    after = {"test_unseen": {metric: estimate(later, 0, 1)}}
    assert [r.metric for r in find_regressions(USERS, before, after)] == (
        [f"test_unseen/{metric}"] * worse
    )


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one model's metrics committed."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "metrics/evaluation/m.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(BEFORE))
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for name in ("params.yaml", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "m"]):
        subprocess.run([*git, *command], check=True)
    return file


def test_the_gate_compares_with_what_git_holds(repository):
    assert run_gate("HEAD", [MODEL]) == []
    repository.write_text(json.dumps(now(ip=0.5)))
    assert [r.metric for r in run_gate("HEAD", [MODEL])] == ["heldout/ip"]


def test_a_wrong_revision_or_model_is_named(repository):
    with pytest.raises(InputError, match="'nowhere' has no metrics/evaluation/m.json.*--rev"):
        evaluation_at("nowhere", PATH)
    with pytest.raises(InputError, match="metrics/evaluation/other.json"):
        run_gate("HEAD", [Gated("other", PATH.with_name("other.json"), KINDS)])


def test_the_command_fails_with_the_regressions_named(repository):
    def gate():
        return subprocess.run(
            [sys.executable, "-m", "pipeline.evaluate", "gate", "--models", "m"],
            capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    passed = gate()
    assert (passed.returncode, passed.stdout) == (0, "gate: no metric of m is worse than at HEAD\n")
    repository.write_text(json.dumps(now(ip=0.5)))
    failed = gate()
    assert failed.returncode == 1
    assert failed.stdout == "m heldout/ip: 0.5 of n = 100, was 0.05 (0.02 to 0.11, n = 100)\n"
    assert "1 metrics of m are worse than at HEAD" in failed.stderr
