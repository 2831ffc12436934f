import contextlib
import dataclasses
import math

import pytest
import torch

from pipeline.errors import InputError
from pipeline.training.loop import (
    TrainSettings,
    kept_entry,
    rows_of_step,
    schedule,
    train,
    without_housekeeping,
)
from pipeline.training.processes import Processes

SETTINGS = TrainSettings(
    learning_rate=0.05, warmup_steps=3, batch=4, max_steps=12, weight_decay=0.01,
    max_grad_norm=1.0, seed=7, checkpoint_every=4, log_every=2,
)  # fmt: skip


class Killed(Exception):
    """Stands for kill -9 in mid-run."""


def problem():
    """A linear fit with noise from the step's generator: weight, step function."""
    weight = torch.nn.Parameter(torch.zeros(3))
    data = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))

    def step(rows, generator):
        noise = torch.randn(len(rows), generator=generator)
        losses = (data[rows] @ weight - data[rows].sum(1) + 0.1 * noise).square()
        yield losses, {"abs": losses.detach().sqrt()}

    return weight, step


def run(path, step_hook=None, settings=SETTINGS, identity="x"):
    weight, step = problem()
    wrapped = step
    if step_hook:

        def wrapped(rows, generator):
            step_hook()
            return step(rows, generator)

    history = train({"w": weight}, 10, wrapped, settings, path, identity)
    return weight.detach(), history


def test_it_learns_and_logs_means(tmp_path):
    weight, history = run(tmp_path / "c", settings=dataclasses.replace(SETTINGS, max_steps=200))
    assert torch.allclose(weight, torch.ones(3), atol=0.15)
    assert [h["step"] for h in history[:3]] == [2, 4, 6]
    assert set(history[0]) == {"step", "loss", "abs"}


def test_a_batch_in_parts_trains_and_logs_as_a_whole_one(tmp_path):
    whole, expected = run(tmp_path / "whole")
    weight, step = problem()
    gradients = []

    def in_parts(rows, generator):
        for part in (slice(0, 3), slice(3, 4)):
            ((losses, metrics),) = step(rows, torch.Generator().set_state(generator.get_state()))
            yield losses[part], {name: value[part] for name, value in metrics.items()}
            gradients.append(weight.grad.clone())  # of this part, before the next is made

    history = train({"w": weight}, 10, in_parts, SETTINGS, tmp_path / "parts", "x")
    assert torch.allclose(weight, whole, atol=1e-6)
    for entry, other in zip(history, expected, strict=True):
        assert entry == pytest.approx(other, rel=1e-5)
    assert all(not torch.equal(gradients[k], gradients[k + 1]) for k in range(0, 24, 2))


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    expected, expected_history = run(tmp_path / "whole")
    calls = {"n": 0}

    def die_at(n):
        def hook():
            calls["n"] += 1
            if calls["n"] == n:
                raise Killed

        return hook

    for n in (7, 13):  # dies at step 7, then again at step 11 of the resumed run
        with pytest.raises(Killed):
            run(tmp_path / "c", die_at(n))
    assert (tmp_path / "c").exists()
    weight, history = run(tmp_path / "c")
    assert torch.equal(weight, expected)
    assert history == expected_history


def test_a_run_killed_after_its_last_step_does_not_train_again(tmp_path):
    weight, history = run(tmp_path / "c")

    def never():
        raise AssertionError("trained again")

    again, same = run(tmp_path / "c", never)
    assert torch.equal(again, weight)
    assert same == history


def test_the_checkpoint_of_another_run_is_ignored(tmp_path):
    def die():
        calls.append(1)
        if len(calls) == 6:
            raise Killed

    calls = []
    with pytest.raises(Killed):
        run(tmp_path / "c", die, identity="other data")
    assert torch.equal(run(tmp_path / "c")[0], run(tmp_path / "d")[0])


def test_a_loss_that_is_not_finite_stops_with_step_and_its_rows(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(1))
    third, fourth = rows_of_step(10, 4, 0, SETTINGS.seed)[2:].tolist()

    def step(rows, generator):
        for part in (rows[:3], rows[3:]):
            bad = (part == third) | (part == fourth)
            yield weight + part + torch.where(bad, float("nan"), 0.0), {}

    with pytest.raises(FloatingPointError, match=f"nan at step 0, of row {third}, row {fourth}; "):
        train({"w": weight}, 10, step, SETTINGS, tmp_path / "c", "x")
    with pytest.raises(FloatingPointError, match=f"of pair {third}, pair {fourth}; lower optim"):
        train({"w": weight}, 10, step, SETTINGS, tmp_path / "d", "x", name_row="pair {}".format)


def test_a_gradient_that_is_not_finite_stops_before_a_weight_takes_it_up(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(1))

    def step(rows, generator):
        yield weight.sqrt() + rows, {}  # the loss is finite, its derivative at 0 is not

    with pytest.raises(FloatingPointError, match="the gradient is not finite at step 0; lower"):
        train({"w": weight}, 10, step, SETTINGS, tmp_path / "c", "x")
    assert weight.item() == 0
    assert not list((tmp_path / "c").glob("*"))


def test_a_diverging_run_is_stopped_with_advice(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(1))

    def step(rows, generator):
        yield (
            weight * rows,
            {
                "error/chosen": torch.full((len(rows),), 1.4),
                # one row with next to no error must not decide: 1.4 / 1.0, not the mean of ratios
                "error/chosen_reference": torch.tensor([0.001, 1.333, 1.333, 1.333]),
            },
        )

    allowed = dataclasses.replace(SETTINGS, max_chosen_error=0.5)
    assert train({"w": weight}, 10, step, allowed, tmp_path / "c", "x")[-1]["step"] == 12
    guarded = dataclasses.replace(SETTINGS, max_chosen_error=0.3)
    with pytest.raises(FloatingPointError, match="at step 2 .* is 40% above .*learning_rate"):
        train({"w": weight}, 10, step, guarded, tmp_path / "d", "x")


def test_held_out_measures_that_are_not_finite_stop_the_run(tmp_path):
    weight, step = problem()
    with pytest.raises(FloatingPointError, match="held-out measures are not finite at step 2"):
        train({"w": weight}, 10, step, SETTINGS, tmp_path / "c", "x", lambda: {"loss": math.nan})


def test_with_patience_a_run_ends_with_its_best_weights_and_stays_ended(tmp_path):
    weight, step = problem()
    losses, weights = [5.0, 4.0, 4.5, 4.0, 1.0], []
    patient = dataclasses.replace(SETTINGS, patience=2, max_steps=20, checkpoint_every=12)

    def evaluate():
        weights.append(weight.detach().clone())
        return {"loss": losses[len(weights) - 1]}

    history = train({"w": weight}, 10, step, patient, tmp_path / "c", "x", evaluate)
    assert [h["eval/loss"] for h in history] == [5.0, 4.0, 4.5, 4.0]
    assert history[-1]["step"] == 8
    assert torch.equal(weight.detach(), weights[1])
    assert kept_entry(history, patient)["step"] == 4
    assert kept_entry(history, SETTINGS)["step"] == 8

    again, step = problem()  # from the checkpoint of the last step, which was not due
    assert train({"w": again}, 10, step, patient, tmp_path / "c", "x", evaluate) == history
    assert torch.equal(again.detach(), weights[1])


def test_every_entry_is_observed_those_before_a_resume_too(tmp_path):
    def observed(dies_at):
        (weight, step), seen, calls = problem(), [], []

        def counting(rows, generator):
            calls.append(1)
            if len(calls) == dies_at:
                raise Killed
            return step(rows, generator)

        with contextlib.suppress(Killed):
            train({"w": weight}, 10, counting, SETTINGS, tmp_path, "x", observe=seen.append)
        return [entry["step"] for entry in seen]

    assert observed(dies_at=8) == [2, 4, 6]
    assert observed(dies_at=None) == [2, 4, 6, 8, 10, 12]


def test_processes_that_found_different_checkpoints_are_told(tmp_path):
    class OtherIsAhead(Processes):
        def sum(self, value):
            return 2 * value + 40

    with pytest.raises(InputError, match="goes on from step 0, others do not.*.checkpoints folder"):
        weight, step = problem()
        train({"w": weight}, 10, step, SETTINGS, tmp_path, "x", processes=OtherIsAhead(0, 2))


def test_magnitudes_do_not_decay(tmp_path):
    matrix, magnitude = (torch.nn.Parameter(torch.full((2,), 2.0)) for _ in range(2))

    def still(rows, generator):
        yield 0.0 * (matrix.sum() + magnitude.sum()) + torch.zeros(len(rows)), {}

    decaying = dataclasses.replace(SETTINGS, weight_decay=0.5)
    parameters = {"x.lora_A.weight": matrix, "x.lora_magnitude_vector.weight": magnitude}
    train(parameters, 10, still, decaying, tmp_path, "x")
    assert (magnitude == 2.0).all()
    assert (matrix < 1.9).all()


@pytest.mark.parametrize(
    "change", [{"checkpoints": 3}, {"checkpoint_every": 2}, {"micro_batch": 2}]
)
def test_housekeeping_settings_do_not_start_a_run_anew(tmp_path, change):
    run(tmp_path)

    def never():
        raise AssertionError("trained again")

    run(tmp_path, never, dataclasses.replace(SETTINGS, **change))


def test_every_epoch_visits_every_row_once():
    seen = torch.cat([rows_of_step(10, 4, step, seed=0) for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_a_batch_larger_than_the_data_wraps_around():
    assert sorted(rows_of_step(2, 5, 0, seed=0).tolist()) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


def test_learning_rate_rises_stays_and_falls_where_it_is_asked_to():
    settings = dataclasses.replace(SETTINGS, warmup_steps=4, max_steps=10)
    assert [schedule(s, settings) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule(9, settings) == schedule(0, dataclasses.replace(settings, warmup_steps=0)) == 1
    falling = dataclasses.replace(settings, decay_steps=5)
    assert [schedule(s, falling) for s in range(3, 10)] == [1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]


def test_a_run_that_does_not_decay_is_the_one_from_before_it_could():
    told = without_housekeeping(dataclasses.asdict(SETTINGS))
    assert "decay_steps" not in told and "checkpoint_every" not in told
    falling = dataclasses.replace(SETTINGS, decay_steps=5)
    assert without_housekeeping(dataclasses.asdict(falling)) == told | {"decay_steps": 5}


def test_no_more_rows_are_together_than_a_process_has():
    for micro, processes, together in (
        (None, 1, 4), (1, 1, 1), (4, 1, 4), (9, 1, 4), (None, 3, 2), (3, 3, 2), (1, 3, 1)
    ):  # fmt: skip
        settings = dataclasses.replace(SETTINGS, micro_batch=micro)
        assert settings.at_once(processes) == together
