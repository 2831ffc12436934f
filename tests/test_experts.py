import copy
import dataclasses
import uuid

import pytest
import torch

from pipeline.dpo import LOSSES, squared_error
from pipeline.errors import InputError
from pipeline.experts import LoraSettings, Recipe, WatchSettings, train_lora
from pipeline.preference import DpoSettings, NoiseSchedule, hold_out
from pipeline.train import TrainSettings

LORA = LoraSettings(rank=4, targets=["to_q", "to_k", "to_v", "to_out.0"])
DPO = DpoSettings(beta=200.0, mu=None, captions="both", prompt_dropout=0.0)
NOT_WATCHED = WatchSettings()
SETTINGS = TrainSettings(
    learning_rate=0.02, warmup_steps=0, batch=4, max_steps=40, weight_decay=0.0,
    max_grad_norm=1.0, seed=0, checkpoint_every=20, log_every=10,
)  # fmt: skip


def train(
    unet, latents, alphas, tmp_path, dpo=DPO, settings=SETTINGS, lora=LORA, category="hate",
    watch=NOT_WATCHED,
):  # fmt: skip
    return train_lora(
        unet, latents, [category], NoiseSchedule(alphas, "epsilon"),
        Recipe(lora, dpo, settings, watch),
        tmp_path / str(uuid.uuid4()),  # never the checkpoint of an earlier run
    )  # fmt: skip


def test_training_learns_the_preference(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    _, history = train(tiny_unet, tiny_latents, alphas_cumprod, tmp_path)
    assert history[-1]["loss"] < 0.5 < history[0]["loss"] + 0.1
    assert history[-1]["rewards/accuracies"] > 0.7


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_trains(loss, tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    dpo = dataclasses.replace(DPO, loss=loss)
    _, history = train(tiny_unet, tiny_latents, alphas_cumprod, tmp_path, dpo)
    assert history[-1]["loss"] < history[0]["loss"]


def test_bf16_and_checkpointing_train_the_same_fp32_weights(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    short, found = dataclasses.replace(SETTINGS, max_steps=6), {}
    for name, change in (
        ("plain", {}), ("checkpointing", {"gradient_checkpointing": True}),
        ("bf16", {"precision": "bf16"}),
    ):  # fmt: skip
        lora, history = train(
            copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path,
            settings=dataclasses.replace(short, **change),
        )  # fmt: skip
        found[name] = lora, history[-1]["loss"]
    plain, loss = found["plain"]
    for layer, value in plain.items():
        assert torch.allclose(found["checkpointing"][0][layer].delta, value.delta, atol=1e-5)
        assert found["bf16"][0][layer].up.dtype == torch.float32
    assert found["bf16"][1] == pytest.approx(loss, rel=0.1)
    assert found["bf16"][1] != loss


def test_fixed_draws_are_not_made_where_they_would_cost_more(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    short = dataclasses.replace(SETTINGS, max_steps=4)  # 16 visits of 8 rows
    found = {}
    for draws in (None, 1, 2):
        found[draws], _ = train(
            copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path, settings=short,
            dpo=dataclasses.replace(DPO, fixed_draws=draws),
        )  # fmt: skip
    for layer in found[None]:
        assert torch.equal(found[2][layer].delta, found[None][layer].delta)
    assert any(not torch.equal(found[1][k].delta, found[None][k].delta) for k in found[1])


def test_alpha_scales_the_delta_that_is_kept(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    short = dataclasses.replace(SETTINGS, max_steps=1, learning_rate=1e-3)
    norms = []
    for alpha in (None, 4.0, 8.0):  # rank is 4
        lora, _ = train(
            copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path, settings=short,
            lora=dataclasses.replace(LORA, alpha=alpha),
        )  # fmt: skip
        norms.append(sum(layer.delta.norm() for layer in lora.values()).item())
    assert norms[0] == norms[1]
    assert norms[2] == pytest.approx(2 * norms[0], rel=0.05)


def test_held_out_pairs_are_measured_and_not_trained_on(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path, monkeypatch
):
    seen = set()

    def spying(latents, pairs):
        kept, held_out = hold_out(latents, pairs)
        seen.update(kept.pair_ids)
        return kept, held_out

    monkeypatch.setattr("pipeline.experts.hold_out", spying)
    _, history = train(tiny_unet, tiny_latents, alphas_cumprod, tmp_path, watch=WatchSettings(1, 8))
    assert len(seen) == 3
    assert history[0].keys() == history[-1].keys()
    assert {"eval/loss", "eval/rewards/accuracies"} <= history[0].keys()
    assert history[-1]["eval/rewards/margins"] != history[0]["eval/rewards/margins"]


def test_training_is_deterministic(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    short = dataclasses.replace(SETTINGS, max_steps=6)
    first, _ = train(
        copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path, settings=short
    )
    again, _ = train(
        copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path, settings=short
    )
    assert all(torch.equal(first[k].delta, again[k].delta) for k in first)


def test_the_safeguard_spares_the_chosen_side(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    ends = {}
    for mu in (None, 0.5):
        dpo = dataclasses.replace(DPO, mu=mu)
        _, history = train(copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path, dpo)
        ends[mu] = history[-1]["error/chosen_over_reference"]
    assert ends[0.5] < ends[None]


def test_latents_of_another_model_are_refused(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    wide = dataclasses.replace(tiny_latents, prompt_embeds=torch.zeros(9, 6, 16))
    with pytest.raises(InputError, match="text width 16, the UNet of base_model.path 4 and 8"):
        train(tiny_unet, wide, alphas_cumprod, tmp_path)


def test_a_reversed_preference_is_refused(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    swapped = dataclasses.replace(tiny_latents, margin=-tiny_latents.margin)
    with pytest.raises(InputError, match="the preference is reversed"):
        train(tiny_unet, swapped, alphas_cumprod, tmp_path)


def test_no_pairs_is_an_error(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    with pytest.raises(InputError, match="no pairs to train on"):
        train(tiny_unet, dataclasses.replace(tiny_latents, pair_ids=[]), alphas_cumprod, tmp_path)


def test_retention_keeps_safe_prompts_as_they_were(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    drift = {}
    for retention in (1e-3, 300.0):
        dpo = dataclasses.replace(DPO, captions="unsafe", retention=retention)
        _, history = train(copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path, dpo)
        drift[retention] = history[-1]["error/retention"]
    assert drift[300.0] < 0.5 * drift[1e-3]


def test_an_expert_writes_to_its_own_share_of_rows(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    short = dataclasses.replace(SETTINGS, max_steps=4, weight_decay=0.1)
    lora = dataclasses.replace(LORA, row_share=0.3)
    used = {}
    for category in ("hate", "violence", "violence"):
        trained, _ = train(copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path,
                           settings=short, lora=lora, category=category)  # fmt: skip
        rows = torch.cat([layer.delta.abs().sum(1) > 0 for layer in trained.values()])
        if category in used:
            assert torch.equal(used[category], rows)
        used[category] = rows
    assert 0.15 < used["hate"].float().mean() < 0.45
    assert not torch.equal(used["hate"], used["violence"])


def test_a_killed_run_behind_a_null_space_resumes_to_the_same_bits(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path, monkeypatch
):
    lora = dataclasses.replace(
        LORA, row_share=0.5, null_damping=0.1, null_prompts=3, null_timesteps=[100, 900]
    )
    settings = dataclasses.replace(SETTINGS, max_steps=6, checkpoint_every=2, log_every=2)

    def run(checkpoint):
        return train_lora(
            copy.deepcopy(tiny_unet), tiny_latents, ["hate"],
            NoiseSchedule(alphas_cumprod, "epsilon"),
            Recipe(lora, dataclasses.replace(DPO, fixed_draws=2), settings, WatchSettings(1, 2)),
            tmp_path / checkpoint,
        )[0]  # fmt: skip

    whole = run("whole")
    calls = []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 9:  # between the first checkpoint and the end
            raise KeyboardInterrupt
        return squared_error(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.preference.squared_error", dies)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    resumed = run("cut")
    assert all(torch.equal(whole[k].delta, resumed[k].delta) for k in whole)


def test_a_null_space_leaves_safe_prompts_alone_and_still_learns(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    # the text layers see nothing but prompts, so what is left of the delta on them is exact
    left, learnt = {}, {}
    for damping in (None, 0.01):
        lora = dataclasses.replace(
            LORA, targets=["attn2.to_k", "attn2.to_v"], null_damping=damping, null_prompts=4,
            null_timesteps=[100, 900],
        )  # fmt: skip
        one_prompt = dataclasses.replace(
            tiny_latents,
            chosen_prompt=torch.tensor([1, 1, 1, 1]),
            rejected_prompt=torch.arange(5, 9),
        )
        dpo = dataclasses.replace(DPO, captions="unsafe")
        trained, history = train(copy.deepcopy(tiny_unet), one_prompt, alphas_cumprod, tmp_path,
                                 dpo=dpo, lora=lora)  # fmt: skip
        learnt[damping] = history[-1]["rewards/accuracies"]
        safe, unsafe = tiny_latents.prompt_embeds[1], tiny_latents.prompt_embeds[5:]
        left[damping] = sum(
            ((safe @ d.delta.T).norm() / (unsafe @ d.delta.T).norm()).item()
            for d in trained.values()
        ) / len(trained)
    assert left[0.01] < 0.3 * left[None]
    assert learnt[0.01] > 0.6
