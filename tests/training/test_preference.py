import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.diffusion import NoiseSchedule
from pipeline.errors import InputError
from pipeline.lora import attach_lora
from pipeline.training.dpo import Errors
from pipeline.training.noised import NoisedPairs
from pipeline.training.preference import (
    DpoSettings,
    PreferenceStep,
    caption_rows,
    preference_losses,
)
from pipeline.training.processes import ALONE, Processes

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
DPO = DpoSettings(beta=200.0, mu=None, captions="both", prompt_dropout=0.0)
FIXED = dataclasses.replace(DPO, fixed_draws=5)


def moved_away(unet):
    """The UNet with a LoRA that changes its predictions."""
    attach_lora(unet, 2, TARGETS, seed=0)
    for parameter in (p for n, p in unet.named_parameters() if "lora_" in n):
        parameter.data += 0.1
    return unet


def at_once(step, rows, seed):
    """Losses and metrics of a step that looks at all rows together."""
    (found,) = step(rows, torch.Generator().manual_seed(seed))
    return found


def test_both_captions_make_two_rows_of_a_pair(tiny_latents):
    pairs, prompts = caption_rows(tiny_latents, "both")
    assert pairs.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert prompts.tolist() == [5, 6, 7, 8, 1, 2, 3, 4]
    assert caption_rows(tiny_latents, "unsafe")[1].tolist() == [5, 6, 7, 8]
    assert caption_rows(tiny_latents, "safe")[1].tolist() == [1, 2, 3, 4]


def test_the_gradient_of_a_prediction_is_that_of_the_formula():
    """Every number from the published formulas, in NumPy: both sides, through lambda."""
    rng = np.random.default_rng(0)
    batch, beta, mu = 3, 6.0, 0.4
    target = rng.normal(size=(2 * batch, 2, 2, 2))
    policy = target + rng.normal(size=target.shape)
    # the sides' residuals point the same way, where lambda is neither 0 nor 1
    policy[batch:] = target[batch:] + 2 * (policy - target)[:batch] + policy[batch:] * 0.1
    reference = rng.uniform(0.5, 2.0, size=(2, batch))
    residual = (policy - target).reshape(2, batch, -1)
    error = (residual**2).mean(-1)
    logit = -(beta / 2) * ((error[0] - error[1]) - (reference[0] - reference[1]))
    push = (beta / 2) / (1 + np.exp(logit))  # d loss / d chosen error, minus that of the rejected
    scale = (1 - mu) * (residual[0] ** 2).sum(-1) / (residual[0] * residual[1]).sum(-1)
    assert ((0.05 < scale) & (scale < 0.95)).all()  # the case that is not clamped
    sides = np.stack([push, -push * scale])[:, :, None]
    expected = (sides * 2 * residual / residual.shape[-1]).reshape(policy.shape)

    given = torch.tensor(policy, requires_grad=True)
    settings = dataclasses.replace(DPO, beta=beta, mu=mu)
    references = Errors(*torch.tensor(reference))
    losses, _ = preference_losses(given, torch.tensor(target), references, settings)
    assert losses.tolist() == pytest.approx(np.log1p(np.exp(-logit)).tolist())
    losses.sum().backward()
    assert given.grad.flatten().tolist() == pytest.approx(expected.ravel().tolist(), rel=1e-6)


def test_rows_are_called_by_their_pair(tiny_unet, tiny_latents, alphas_cumprod):
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), DPO)
    assert [step.name_row(k) for k in (0, 3, 4, 7)] == ["pair a", "pair d", "pair a", "pair d"]


def test_untrained_policy_is_the_reference(tiny_unet, tiny_latents, alphas_cumprod):
    attach_lora(tiny_unet, 2, TARGETS, seed=0)
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), DPO)
    losses, metrics = at_once(step, torch.arange(8), 0)
    assert torch.allclose(losses, torch.full((8,), 2.0).log(), atol=1e-5)
    assert metrics["rewards/margins"].abs().max() < 1e-4


def test_the_sides_share_noise_timestep_and_posterior_draw(tiny_unet, tiny_latents, alphas_cumprod):
    # two equal sides must have equal errors; independent draws (the published flips) would differ
    moved_away(tiny_unet)
    same = dataclasses.replace(
        tiny_latents, rejected_mean=tiny_latents.chosen_mean, rejected_std=tiny_latents.chosen_std
    )
    step = PreferenceStep(tiny_unet, same, NoiseSchedule(alphas_cumprod, "epsilon"), DPO)
    _, metrics = at_once(step, torch.arange(8), 0)
    assert metrics["rewards/chosen"].abs().min() > 1e-4
    assert torch.allclose(metrics["rewards/chosen"], metrics["rewards/rejected"], atol=1e-4)


def with_views(latents, views=3):
    """Pairs in several views that can be told apart: view k is 10 k brighter on both sides."""
    shift = 10.0 * torch.arange(views).view(1, views, 1, 1, 1)
    return dataclasses.replace(
        latents, corner=torch.arange(views).view(1, views, 1).repeat(len(latents), 1, 2),
        **{f"{s}_mean": getattr(latents, f"{s}_mean") + shift for s in ("chosen", "rejected")},
        **{f"{s}_std": getattr(latents, f"{s}_std").repeat(1, views, 1, 1, 1)
           for s in ("chosen", "rejected")},
    )  # fmt: skip


@pytest.mark.parametrize("fixed_draws", [None, 5])
def test_both_sides_show_the_same_view(
    tiny_unet, tiny_latents, alphas_cumprod, fixed_draws, monkeypatch
):
    attach_lora(tiny_unet, 2, TARGETS, seed=0)
    latents, seen = with_views(tiny_latents), []
    dpo = dataclasses.replace(DPO, fixed_draws=fixed_draws)
    step = PreferenceStep(tiny_unet, latents, NoiseSchedule(alphas_cumprod, "epsilon"), dpo)
    noised = NoisedPairs._noised
    monkeypatch.setattr(NoisedPairs, "_noised", lambda self, clean, *rest: (
        seen.append(clean), noised(self, clean, *rest))[1])  # fmt: skip
    for seed in range(6):
        at_once(step, torch.arange(8), seed)
    views = (torch.cat(seen).mean((1, 2, 3)) / 10).round()
    assert set(views.tolist()) == {0, 1, 2}
    for clean in seen:
        chosen, rejected = (clean.mean((1, 2, 3)) / 10).chunk(2)
        # the sides' own means differ by about 1.5, views by 10
        assert torch.equal(chosen.round(), (rejected - 0.15).round())


def test_sdxl_is_told_where_a_view_was_cut(tiny_latents):
    latents = with_views(tiny_latents)
    given = dataclasses.replace(
        latents, pooled_embeds=torch.zeros(9, 2).half(), pixels=64, view_pixels=32
    ).conditions(torch.tensor([1, 2]), latents.corner[[0, 0], [2, 0]], "cpu")
    assert given["added_cond_kwargs"]["time_ids"].tolist() == [
        [64, 64, 2, 2, 32, 32], [64, 64, 0, 0, 32, 32]
    ]  # fmt: skip


def test_shares_of_processes_make_up_the_batch(tiny_unet, tiny_latents, alphas_cumprod):
    moved_away(tiny_unet)
    schedule = NoiseSchedule(alphas_cumprod, "epsilon")
    dpo = dataclasses.replace(DPO, prompt_dropout=0.5)
    rows = torch.tensor([0, 3, 6, 6, 1])

    def losses(processes):
        step = PreferenceStep(tiny_unet, tiny_latents, schedule, dpo, processes=processes)
        return at_once(step, rows, 1)[0]

    parts = [losses(Processes(k, 2)) for k in range(2)]
    assert [len(part) for part in parts] == [3, 2]
    assert torch.allclose(torch.cat(parts), losses(ALONE), atol=1e-4)


@pytest.mark.parametrize("fixed_draws", [None, 5])
def test_parts_make_up_the_batch(tiny_unet, tiny_latents, alphas_cumprod, fixed_draws):
    moved_away(tiny_unet)
    schedule = NoiseSchedule(alphas_cumprod, "epsilon")
    dpo = dataclasses.replace(DPO, prompt_dropout=0.5, mu=0.5, fixed_draws=fixed_draws)
    rows = torch.tensor([0, 3, 6, 6, 1])
    whole = at_once(PreferenceStep(tiny_unet, tiny_latents, schedule, dpo), rows, 1)
    for micro, lengths in ((2, [2, 2, 1]), (1, [1] * 5), (9, [5])):
        step = PreferenceStep(tiny_unet, tiny_latents, schedule, dpo, at_once=micro)
        parts = list(step(rows, torch.Generator().manual_seed(1)))
        assert [len(losses) for losses, _ in parts] == lengths
        assert torch.allclose(torch.cat([losses for losses, _ in parts]), whole[0], atol=1e-4)
        for name, value in whole[1].items():
            assert torch.allclose(torch.cat([p[1][name] for p in parts]), value, atol=1e-3), name


def test_rehearsing_leaves_no_gradient(tiny_unet, tiny_latents, alphas_cumprod):
    moved_away(tiny_unet)
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), FIXED)
    sizes = []
    tiny_unet.register_forward_pre_hook(
        lambda _, __, given: sizes.append(len(given["sample"])), with_kwargs=True
    )
    step.rehearse(12)  # more than there are rows
    assert sizes == [24, 24]  # reference and policy, both sides
    PreferenceStep(
        tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), FIXED, at_once=5
    ).rehearse(12)
    assert sizes[2:] == [10, 10]
    assert all(p.grad is None for p in tiny_unet.parameters())


def test_retention_adds_the_drift_on_safe_prompts_and_nothing_else(
    tiny_unet, tiny_latents, alphas_cumprod
):
    moved_away(tiny_unet)
    plain = dataclasses.replace(DPO, captions="unsafe")
    losses, drifts = {}, None
    for retention in (0.0, 10.0):
        settings = dataclasses.replace(plain, retention=retention)
        schedule = NoiseSchedule(alphas_cumprod, "epsilon")
        step = PreferenceStep(tiny_unet, tiny_latents, schedule, settings)
        losses[retention], metrics = at_once(step, torch.arange(4), 0)
        drifts = metrics.get("error/retention")
    assert drifts.min() > 0
    assert torch.allclose(losses[10.0], losses[0.0] + 10 * drifts, atol=1e-4)


def test_fixed_draws_give_the_losses_of_a_reference_pass(tiny_unet, tiny_latents, alphas_cumprod):
    step = PreferenceStep(
        moved_away(tiny_unet), tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), FIXED
    )
    rows = torch.tensor([0, 3, 6, 6])
    losses, metrics = at_once(step, rows, 4)
    which = torch.randint(5, (4,), generator=torch.Generator().manual_seed(4))
    passed, _ = step._preference(rows, step._random.fixed(rows, which), None)
    assert torch.allclose(losses, passed, atol=1e-5)
    assert metrics["rewards/margins"].abs().min() > 1e-4


def test_fixed_draws_follow_from_the_pair(tiny_unet, tiny_latents, alphas_cumprod):
    schedule = NoiseSchedule(alphas_cumprod, "epsilon")

    def noise(latents, row):
        step = PreferenceStep(tiny_unet, latents, schedule, FIXED)
        return step._random.fixed(torch.tensor([row]), torch.tensor([0])).noise

    last = tiny_latents.select([3])  # as a held-out pair, or after others were added
    assert torch.equal(noise(last, 0), noise(tiny_latents, 3))
    assert torch.equal(noise(last, 1), noise(tiny_latents, 7))  # under its other caption
    assert not torch.equal(noise(last, 0), noise(tiny_latents, 0))
    assert not torch.equal(noise(last, 0), noise(last, 1))


def test_the_safeguard_leaves_pairs_alone_that_ipo_pulls_together(
    tiny_unet, tiny_latents, alphas_cumprod
):
    moved_away(tiny_unet)
    rows = torch.arange(8)
    gradients = {}
    for mu in (None, 1.0):  # 1.0 stops the rejected side's gradient wherever it may
        dpo = dataclasses.replace(DPO, loss="ipo", beta=5000.0, mu=mu)
        step = PreferenceStep(
            tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), dpo
        )
        losses, metrics = at_once(step, rows, 0)
        beyond = metrics["rewards/margins"] > 0.5
        assert 0 < beyond.sum() < 8
        parameter = next(p for n, p in tiny_unet.named_parameters() if "lora_B" in n)
        gradients[mu] = [
            torch.autograd.grad(loss, parameter, retain_graph=True)[0] for loss in losses
        ]
    same = [torch.allclose(a, b) for a, b in zip(*gradients.values(), strict=True)]
    assert [s for s, far in zip(same, beyond, strict=True) if far] == [True] * beyond.sum()
    assert not all(same)


def test_the_reference_sees_every_fixed_draw_once(
    tiny_unet, tiny_latents, alphas_cumprod, monkeypatch
):
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), FIXED)
    attach_lora(tiny_unet, 2, TARGETS, seed=0)
    seen, reference_errors = [], step._reference_errors

    def spying(inputs, target):
        seen.append(len(target) // 2)
        return reference_errors(inputs, target)

    monkeypatch.setattr(step, "_reference_errors", spying)
    for seed in range(20):
        at_once(step, torch.arange(8), seed)
    step.measure()
    assert sum(seen) == 8 * 5


def test_fixed_draws_cover_the_timesteps_evenly(tiny_unet, tiny_latents, alphas_cumprod):
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), FIXED)
    draws = step._random.fixed(torch.full((5,), 3), torch.arange(5))
    assert (draws.timesteps // 200).tolist() == [0, 1, 2, 3, 4]
    again = step._random.fixed(torch.tensor([3]), torch.tensor([2]))
    assert torch.equal(again.noise[0], draws.noise[2])
    assert not torch.equal(draws.noise[0], draws.noise[1])


def test_measure_is_the_mean_over_rows_and_draws(tiny_unet, tiny_latents, alphas_cumprod):
    schedule = NoiseSchedule(alphas_cumprod, "epsilon")
    two_draws = dataclasses.replace(FIXED, fixed_draws=2)
    step = PreferenceStep(moved_away(tiny_unet), tiny_latents, schedule, two_draws, at_once=3)
    measured = step.measure()

    def draws(row, k):
        return step._random.fixed(torch.tensor([row]), torch.tensor([k]))

    with torch.no_grad():
        margins = [
            step._preference(torch.tensor([row]), draws(row, k), None)[1]["rewards/margins"].item()
            for row in range(8)
            for k in range(2)
        ]
    assert measured["rewards/margins"] == pytest.approx(sum(margins) / 16, abs=1e-4)


def test_the_measured_loss_is_the_whole_objective(tiny_unet, tiny_latents, alphas_cumprod):
    moved_away(tiny_unet)
    found = []
    for dpo in (FIXED, dataclasses.replace(FIXED, sft_weight=3.0, retention=10.0)):
        schedule = NoiseSchedule(alphas_cumprod, "epsilon")
        found.append(PreferenceStep(tiny_unet, tiny_latents, schedule, dpo).measure())
    plain, whole = found
    terms = 3.0 * whole["error/chosen"] + 10.0 * whole["error/retention"]
    assert whole["error/retention"] > 1e-3
    assert whole["loss"] == pytest.approx(plain["loss"] + terms, rel=1e-4)


def test_fewer_fixed_draws_than_processes_are_refused(tiny_unet, tiny_latents, alphas_cumprod):
    one = dataclasses.replace(FIXED, captions="safe", fixed_draws=1)
    with pytest.raises(InputError, match="1 fixed draws of 1 pairs cannot be shared by 2 proc"):
        PreferenceStep(
            tiny_unet, tiny_latents.select([0]), NoiseSchedule(alphas_cumprod, "epsilon"), one,
            processes=Processes(0, 2),
        )  # fmt: skip


def test_margin_weights_are_one_on_average_and_follow_the_judge(
    tiny_unet, tiny_latents, alphas_cumprod
):
    attach_lora(tiny_unet, 2, TARGETS, seed=0)
    dpo = dataclasses.replace(DPO, margin_weights=True)
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), dpo)
    losses, _ = at_once(step, torch.arange(8), 0)  # ln 2 times the weight
    assert (losses / math.log(2)).tolist() == pytest.approx([0.5, 1.0, 1.5, 1.0] * 2, abs=1e-4)
    nothing = dataclasses.replace(tiny_latents, margin=torch.zeros(4))
    with pytest.raises(InputError, match="margin_weights: the judge prefers no pair"):
        PreferenceStep(tiny_unet, nothing, NoiseSchedule(alphas_cumprod, "epsilon"), dpo)


def test_the_sft_term_is_the_chosen_error(tiny_unet, tiny_latents, alphas_cumprod):
    schedule = NoiseSchedule(alphas_cumprod, "epsilon")
    moved_away(tiny_unet)
    found = []
    for weight, loss in ((0.0, "diffusion_dpo"), (3.0, "diffusion_dpo"), (0.0, "sft")):
        dpo = dataclasses.replace(DPO, sft_weight=weight, loss=loss)
        step = PreferenceStep(tiny_unet, tiny_latents, schedule, dpo)
        found.append(at_once(step, torch.arange(8), 0)[0])
    assert torch.allclose(found[1], found[0] + 3 * found[2], atol=1e-4)
