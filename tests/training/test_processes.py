"""Training in two processes, through the real stage."""

import pytest
import torch
import yaml

from pipeline import artifacts
from pipeline.latents import load_latents
from pipeline.lora import load_lora
from pipeline.params import load_params
from pipeline.seeds import ID_LENGTH, content_id
from pipeline.sources import ModelSource
from pipeline.storage import read_json
from pipeline.training.processes import ALONE, Processes
from tests.started import start_together
from tests.training.test_killed import kill_after_two_checkpoints, project  # noqa: F401


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
    """The stage's expert and metrics, and what it wrote on stderr."""
    stages = start_together(folder, processes, "train_expert", "violence")
    ends = [stage.end() for stage in stages]
    assert all(status == 0 for status, _ in ends), ends
    lora, told = load_lora(folder / artifacts.expert("violence"))
    params = load_params(folder / artifacts.PARAMS)
    source = ModelSource(**params.base_model.weights)
    latents = load_latents(folder / artifacts.latents("violence"))
    assert told["categories"] == ["violence"]
    assert (told["base_model"], told["base_revision"]) == (source.path, source.identity)
    assert told["recipe"]["dpo"]["beta"] == params.experts.dpo.beta
    assert told["recipe_hash"] == content_id(told["recipe"])
    assert told["data"]["violence"] == latents.digest()[:ID_LENGTH]
    assert told["metrics"] == read_json(folder / artifacts.expert_metrics("violence"))
    assert told["metrics"]["steps"] == params.experts.optim.max_steps
    return lora, read_json(folder / artifacts.expert_metrics("violence")), ends[0][1]


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


def test_two_processes_train_what_one_trains_even_where_they_go_on(project):  # noqa: F811
    set_steps(project, batch=3, max_steps=12)  # shares of 2 and 1 rows
    alone, metrics, _ = train(project, 1)
    together, other_metrics, _ = train(project, 2)
    assert close(together, alone)
    assert other_metrics == pytest.approx(metrics, rel=1e-2, abs=1e-3)
    assert not (project / artifacts.checkpoints("violence")).exists()

    kill_after_two_checkpoints(project)  # of one
    set_steps(project, micro_batch=1)  # as after a lack of memory
    resumed, _, log = train(project, 2)
    assert "resuming" in log
    assert close(resumed, alone)


def test_fewer_rows_than_processes_are_refused(project):  # noqa: F811
    set_steps(project, batch=1)
    ends = [stage.end() for stage in start_together(project, 2, "train_expert", "violence")]
    for status, log in ends:
        assert status == 1
        assert "experts.optim.batch (1) must be at least the num" in log
