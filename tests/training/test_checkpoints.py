import logging

import pytest
import torch

from pipeline.training.checkpoints import Checkpoints, TrainState


def fresh():
    """A parameter and its optimizer after nothing."""
    weight = torch.nn.Parameter(torch.zeros(3))
    return {"w": weight}, torch.optim.AdamW([weight], lr=0.1, fused=True)


def stepped(parameters, optimizer, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        parameters["w"].sum().backward()
        optimizer.step()
    return parameters, optimizer


def test_everything_comes_back(tmp_path):
    parameters, optimizer = stepped(*fresh(), 3)
    state = TrainState(3, [{"step": 3, "loss": 0.1}], {"w": torch.ones(3)})
    Checkpoints(tmp_path, "run").save(state, parameters, optimizer)
    again, other = fresh()
    loaded = Checkpoints(tmp_path, "run").load(again, other)
    assert (loaded.step, loaded.history) == (state.step, state.history)
    assert torch.equal(loaded.best["w"], torch.ones(3))
    assert torch.equal(again["w"], parameters["w"])
    # the next step is the same to the last bit: moments and their step count came too
    stepped(parameters, optimizer)
    stepped(again, other)
    assert torch.equal(again["w"], parameters["w"])


def test_the_newest_are_kept(tmp_path):
    parameters, optimizer = stepped(*fresh())
    saved = Checkpoints(tmp_path, "run", keep=2)
    for step in (10, 20, 30, 40):
        saved.save(TrainState(step), parameters, optimizer)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-00000030.safetensors", "step-00000040.safetensors"
    ]  # fmt: skip
    assert saved.load(*fresh()).step == 40


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_checkpoint_is_passed_over_and_then_replaced(tmp_path, caplog, keep):
    parameters, optimizer = stepped(*fresh())
    saved = Checkpoints(tmp_path, "run", keep)
    saved.save(TrainState(10), parameters, optimizer)
    (tmp_path / "step-00000030.safetensors").write_bytes(b"\0" * 40)
    with caplog.at_level(logging.WARNING):
        assert saved.load(*fresh()).step == 10
    assert "passing over the damaged checkpoint" in caplog.text
    saved.save(TrainState(20), parameters, optimizer)
    assert saved.load(*fresh()).step == 20
    assert len(list(tmp_path.iterdir())) == keep


def test_those_of_another_run_do_not_outlive_this_one(tmp_path):
    parameters, optimizer = stepped(*fresh())
    Checkpoints(tmp_path, "other").save(TrainState(90), parameters, optimizer)
    mine = Checkpoints(tmp_path, "run")
    assert mine.load(*fresh()).step == 0
    mine.save(TrainState(10), parameters, optimizer)
    assert mine.load(*fresh()).step == 10
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010.safetensors"]
