"""Training in two processes, through the real stage."""

import subprocess
import sys

import pytest
import torch
import yaml

from pipeline import artifacts
from pipeline.lora import load_lora
from pipeline.processes import ALONE, Processes
from pipeline.storage import read_json
from tests.test_killed import environment, kill_after_a_checkpoint, project  # noqa: F401


def test_shares_cover_every_row_once():
    rows = torch.arange(7)
    shares = [Processes(k, 3).share(rows) for k in range(3)]
    assert torch.equal(torch.cat(shares), rows)
    assert max(map(len, shares)) - min(map(len, shares)) == 1
    assert torch.equal(ALONE.share(rows), rows)
    assert ALONE.main and not Processes(1, 3).main
    value = torch.ones(2)
    assert torch.equal(ALONE.sum(value), value)


def train(folder, processes):
    """The stage's expert and metrics."""
    # on GPUs `accelerate launch` sets the same variables; on CPUs it starts one process only
    many = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    launch = [sys.executable, *(many if processes > 1 else [])]
    done = subprocess.run(
        [*launch, "-m", "stages.train_expert", "violence"], cwd=folder, env=environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lora, _ = load_lora(folder / artifacts.expert("violence"))
    return lora, read_json(folder / artifacts.expert_metrics("violence")), done.stderr


def set_steps(folder, **optim):
    file = folder / artifacts.PARAMS
    params = yaml.safe_load(file.read_text())
    params["experts"]["optim"] |= optim
    file.write_text(yaml.safe_dump(params))


def close(ours, theirs):
    largest = max(layer.delta.abs().max() for layer in theirs.values())
    return all(
        (ours[name].delta - layer.delta).abs().max() < 0.01 * largest
        for name, layer in theirs.items()
    )


def test_two_processes_train_what_one_trains(project):  # noqa: F811
    set_steps(project, batch=3, max_steps=8)  # shares of 2 and 1 rows
    alone, metrics, _ = train(project, 1)
    together, other_metrics, _ = train(project, 2)
    assert close(together, alone)
    assert other_metrics == pytest.approx(metrics, rel=1e-2, abs=1e-3)
    assert not (project / artifacts.checkpoints("violence")).exists()


def test_two_processes_go_on_where_one_was_killed(project):  # noqa: F811
    whole, _, _ = train(project, 1)
    kill_after_a_checkpoint(project)
    resumed, _, log = train(project, 2)
    assert "resuming" in log
    assert close(resumed, whole)


def test_fewer_rows_than_processes_are_refused(project):  # noqa: F811
    set_steps(project, batch=1)
    with pytest.raises(AssertionError, match=r"experts.optim.batch \(1\) must be at least the num"):
        train(project, 2)
