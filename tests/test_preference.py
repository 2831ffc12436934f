import dataclasses
import math

import pytest
import torch

from pipeline.errors import InputError
from pipeline.lora import attach_lora
from pipeline.preference import (
    DpoSettings,
    NoiseSchedule,
    PreferenceStep,
    caption_rows,
    hold_out,
)

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
DPO = DpoSettings(beta=200.0, mu=None, captions="both", prompt_dropout=0.0)
FIXED = dataclasses.replace(DPO, fixed_draws=5)


def moved_away(unet):
    """The UNet with a LoRA that changes its predictions."""
    attach_lora(unet, 2, TARGETS, seed=0)
    for parameter in (p for n, p in unet.named_parameters() if "lora_" in n):
        parameter.data += 0.1
    return unet


def test_both_captions_make_two_rows_of_a_pair(tiny_latents):
    pairs, prompts = caption_rows(tiny_latents, "both")
    assert pairs.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert prompts.tolist() == [5, 6, 7, 8, 1, 2, 3, 4]
    assert caption_rows(tiny_latents, "unsafe")[1].tolist() == [5, 6, 7, 8]
    assert caption_rows(tiny_latents, "safe")[1].tolist() == [1, 2, 3, 4]


def test_untrained_policy_is_the_reference(tiny_unet, tiny_latents, alphas_cumprod):
    attach_lora(tiny_unet, 2, TARGETS, seed=0)
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), DPO)
    losses, metrics = step(torch.arange(8), torch.Generator().manual_seed(0))
    assert torch.allclose(losses, torch.full((8,), 2.0).log(), atol=1e-5)
    assert metrics["rewards/margins"].abs().max() < 1e-4


def test_the_sides_share_noise_timestep_and_posterior_draw(tiny_unet, tiny_latents, alphas_cumprod):
    # two equal sides must have equal errors; independent draws (the published flips) would differ
    attach_lora(tiny_unet, 2, TARGETS, seed=0)
    same = dataclasses.replace(
        tiny_latents, rejected_mean=tiny_latents.chosen_mean, rejected_std=tiny_latents.chosen_std
    )
    for parameter in (p for n, p in tiny_unet.named_parameters() if "lora_" in n):
        parameter.data += 0.1
    step = PreferenceStep(tiny_unet, same, NoiseSchedule(alphas_cumprod, "epsilon"), DPO)
    _, metrics = step(torch.arange(8), torch.Generator().manual_seed(0))
    assert metrics["rewards/chosen"].abs().min() > 1e-4
    assert torch.allclose(metrics["rewards/chosen"], metrics["rewards/rejected"], atol=1e-4)


def test_v_prediction_target_recovers_the_clean_latents(alphas_cumprod):
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 2, 2, generator=rng), torch.randn(2, 1, 2, 2, generator=rng)
    timesteps = torch.tensor([50, 700])
    signal = alphas_cumprod[timesteps].view(2, 1, 1, 1)
    noisy, v = NoiseSchedule(alphas_cumprod, "v_prediction").noised(clean, noise, timesteps)
    assert torch.allclose(signal.sqrt() * noisy - (1 - signal).sqrt() * v, clean, atol=1e-6)
    assert torch.equal(NoiseSchedule(alphas_cumprod, "epsilon").noised(clean, noise, timesteps)[1],
                       noise)  # fmt: skip
    with pytest.raises(InputError, match="'sample' is not known"):
        NoiseSchedule(alphas_cumprod, "sample").noised(clean, noise, timesteps)


def test_retention_adds_the_drift_on_safe_prompts_and_nothing_else(
    tiny_unet, tiny_latents, alphas_cumprod
):
    attach_lora(tiny_unet, 2, TARGETS, seed=0)
    for parameter in (p for n, p in tiny_unet.named_parameters() if "lora_" in n):
        parameter.data += 0.1
    plain = dataclasses.replace(DPO, captions="unsafe")
    losses, drifts = {}, None
    for retention in (0.0, 10.0):
        settings = dataclasses.replace(plain, retention=retention)
        schedule = NoiseSchedule(alphas_cumprod, "epsilon")
        step = PreferenceStep(tiny_unet, tiny_latents, schedule, settings)
        losses[retention], metrics = step(torch.arange(4), torch.Generator().manual_seed(0))
        drifts = metrics.get("error/retention")
    assert drifts.min() > 0
    assert torch.allclose(losses[10.0], losses[0.0] + 10 * drifts, atol=1e-4)


def test_fixed_draws_give_the_losses_of_a_reference_pass(tiny_unet, tiny_latents, alphas_cumprod):
    step = PreferenceStep(
        moved_away(tiny_unet), tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), FIXED
    )
    rows = torch.tensor([0, 3, 6, 6])
    losses, metrics = step(rows, torch.Generator().manual_seed(4))
    which = torch.randint(5, (4,), generator=torch.Generator().manual_seed(4))
    passed, _ = step._preference(rows, step._fixed(rows, which), None)
    assert torch.allclose(losses, passed, atol=1e-5)
    assert metrics["rewards/margins"].abs().min() > 1e-4


def test_fixed_draws_follow_from_the_pair(tiny_unet, tiny_latents, alphas_cumprod):
    schedule = NoiseSchedule(alphas_cumprod, "epsilon")

    def noise(latents, row):
        step = PreferenceStep(tiny_unet, latents, schedule, FIXED)
        return step._fixed(torch.tensor([row]), torch.tensor([0])).noise

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
        losses, metrics = step(rows, torch.Generator().manual_seed(0))
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
        step(torch.arange(8), torch.Generator().manual_seed(seed))
    step.measure()
    assert sum(seen) == 8 * 5


def test_fixed_draws_cover_the_timesteps_evenly(tiny_unet, tiny_latents, alphas_cumprod):
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), FIXED)
    draws = step._fixed(torch.full((5,), 3), torch.arange(5))
    assert (draws.timesteps // 200).tolist() == [0, 1, 2, 3, 4]
    again = step._fixed(torch.tensor([3]), torch.tensor([2]))
    assert torch.equal(again.noise[0], draws.noise[2])
    assert not torch.equal(draws.noise[0], draws.noise[1])


def test_measure_is_the_mean_over_rows_and_draws(tiny_unet, tiny_latents, alphas_cumprod):
    schedule = NoiseSchedule(alphas_cumprod, "epsilon")
    step = PreferenceStep(moved_away(tiny_unet), tiny_latents, schedule, FIXED, batch=3)
    measured = step.measure()
    with torch.no_grad():
        margins = [
            step._preference(
                torch.tensor([row]), step._fixed(torch.tensor([row]), torch.tensor([k])), None
            )[1]["rewards/margins"].item()
            for row in range(8)
            for k in range(5)
        ]
    assert measured["rewards/margins"] == pytest.approx(sum(margins) / 40, abs=1e-4)


def test_held_out_pairs_are_chosen_by_their_ids(tiny_latents):
    kept, held_out = hold_out(tiny_latents, 1)
    assert sorted(kept.pair_ids + held_out.pair_ids) == tiny_latents.pair_ids
    reversed_order = tiny_latents.select([3, 2, 1, 0])
    assert hold_out(reversed_order, 1)[1].pair_ids == held_out.pair_ids
    k = tiny_latents.pair_ids.index(held_out.pair_ids[0])
    assert torch.equal(held_out.chosen_mean[0], tiny_latents.chosen_mean[k])
    assert torch.equal(held_out.rejected_prompt, tiny_latents.rejected_prompt[k : k + 1])
    with pytest.raises(InputError, match="leaves none of 4 pairs"):
        hold_out(tiny_latents, 4)


def test_margin_weights_are_one_on_average_and_follow_the_judge(
    tiny_unet, tiny_latents, alphas_cumprod
):
    attach_lora(tiny_unet, 2, TARGETS, seed=0)
    dpo = dataclasses.replace(DPO, margin_weights=True)
    step = PreferenceStep(tiny_unet, tiny_latents, NoiseSchedule(alphas_cumprod, "epsilon"), dpo)
    losses, _ = step(torch.arange(8), torch.Generator().manual_seed(0))  # ln 2 times the weight
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
        found.append(step(torch.arange(8), torch.Generator().manual_seed(0))[0])
    assert torch.allclose(found[1], found[0] + 3 * found[2], atol=1e-4)
