import dataclasses

import pytest
import torch

from pipeline.diffusion import NoiseSchedule
from pipeline.errors import InputError
from pipeline.training.draws import Draws
from pipeline.training.noised import NoisedPairs

PAIRS, PROMPTS = torch.tensor([2, 0, 2]), torch.tensor([7, 1, 3])


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def draws():
    return Draws(randn(3, 4, 4, 4, seed=1), randn(3, 4, 4, 4, seed=2), torch.tensor([5, 900, 40]),
                 torch.tensor([False, True, False]), torch.zeros(3, dtype=torch.int64))  # fmt: skip


@pytest.fixture
def make(alphas_cumprod):
    def made(latents, kind="epsilon"):
        return NoisedPairs(latents, NoiseSchedule(alphas_cumprod, kind), torch.device("cpu"))

    return made


def test_both_sides_of_a_pair_by_hand(make, tiny_latents, draws, alphas_cumprod):
    inputs, target = make(tiny_latents).both(PAIRS, PROMPTS, draws)
    assert inputs["timestep"].tolist() == [5, 900, 40] * 2
    assert torch.equal(target, torch.cat([draws.noise] * 2))
    for k, side in enumerate(("chosen", "rejected")):
        for row, pair in enumerate(PAIRS):
            mean, std = (getattr(tiny_latents, f"{side}_{n}")[pair, 0] for n in ("mean", "std"))
            signal = alphas_cumprod[draws.timesteps[row]]
            clean, noise = mean + std * draws.posterior[row], draws.noise[row]
            noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
            assert torch.allclose(inputs["sample"][3 * k + row], noisy, atol=1e-5)
    embeds = tiny_latents.prompt_embeds.float()
    assert torch.equal(inputs["encoder_hidden_states"], embeds[[7, 0, 3, 7, 0, 3]])
    assert PROMPTS.tolist() == [7, 1, 3]  # the caller's own are as they were
    assert "added_cond_kwargs" not in inputs


def test_of_the_chosen_side_alone_no_prompt_is_dropped(make, tiny_latents, draws):
    pairs = make(tiny_latents)
    both, _ = pairs.both(PAIRS, PROMPTS, draws)
    inputs, target = pairs.chosen(PAIRS, PROMPTS, draws)
    assert torch.equal(inputs["sample"], both["sample"][:3])
    assert torch.equal(inputs["timestep"], both["timestep"][:3])
    assert torch.equal(target, draws.noise)
    embeds = tiny_latents.prompt_embeds.float()
    assert torch.equal(inputs["encoder_hidden_states"], embeds[PROMPTS])


def test_a_view_goes_with_its_corner_and_sdxls_sizes(make, tiny_latents, draws):
    latents = dataclasses.replace(
        tiny_latents, pooled_embeds=torch.arange(18.0).view(9, 2).half(), pixels=64,
        corner=torch.arange(8).view(4, 2, 1).repeat(1, 1, 2),
        **{f"{s}_{n}": torch.cat([v, v + 100], 1) for s in ("chosen", "rejected")
           for n in ("mean", "std") for v in [getattr(tiny_latents, f"{s}_{n}")]},
    )  # fmt: skip
    nothing, views = torch.zeros(3, 4, 4, 4), torch.tensor([1, 0, 0])
    seen = Draws(nothing, nothing, torch.zeros(3).long(), draws.dropped, views)
    inputs, _ = make(latents).both(PAIRS, PROMPTS, seen)
    assert (inputs["sample"].mean((1, 2, 3)) > 50).tolist() == [True, False, False] * 2
    given = inputs["added_cond_kwargs"]
    assert given["text_embeds"].tolist() == [[14, 15], [0, 1], [6, 7]] * 2  # dropped: the empty one
    assert given["time_ids"].tolist() == [
        [64, 64, 5, 5, 32, 32], [64, 64, 0, 0, 32, 32], [64, 64, 4, 4, 32, 32]
    ] * 2  # fmt: skip


def test_a_v_prediction_model_has_its_own_target(make, tiny_latents, draws, alphas_cumprod):
    _, target = make(tiny_latents, "v_prediction").chosen(PAIRS, PROMPTS, draws)
    signal = alphas_cumprod[draws.timesteps].view(-1, 1, 1, 1)
    clean = tiny_latents.chosen_mean[PAIRS, 0] + 0.05 * draws.posterior
    assert torch.allclose(target, signal.sqrt() * draws.noise - (1 - signal).sqrt() * clean)
    with pytest.raises(InputError, match="prediction_type 'sample' is not known"):
        make(tiny_latents, "sample").chosen(PAIRS, PROMPTS, draws)
