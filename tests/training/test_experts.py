import copy
import dataclasses
import uuid

import pytest
import torch

from pipeline.diffusion import NoiseSchedule, load_noise_schedule, load_unet
from pipeline.encode import encode_pairs
from pipeline.errors import InputError
from pipeline.latents import hold_out
from pipeline.training.dpo import LOSSES, squared_error
from pipeline.training.experts import LoraSettings, Recipe, WatchSettings, train_lora
from pipeline.training.loop import TrainSettings
from pipeline.training.preference import DpoSettings, PreferenceStep
from tests.imports import ROOT
from tests.test_encode import BENIGN, MODEL, pair

LORA = LoraSettings(rank=4, targets=["to_q", "to_k", "to_v", "to_out.0"])
DPO = DpoSettings(beta=200.0, mu=None, captions="both", prompt_dropout=0.0)
NOT_WATCHED = WatchSettings()
SETTINGS = TrainSettings(
    learning_rate=0.02, warmup_steps=0, batch=4, max_steps=20, weight_decay=0.0,
    max_grad_norm=1.0, seed=0, checkpoint_every=20, log_every=5,
)  # fmt: skip


def train(
    unet, latents, alphas, tmp_path, dpo=DPO, settings=SETTINGS, lora=LORA, category="hate",
    watch=NOT_WATCHED, prediction="epsilon",
):  # fmt: skip
    return train_lora(
        unet, {category: latents}, NoiseSchedule(alphas, prediction),
        Recipe(lora, dpo, settings, watch),
        tmp_path / str(uuid.uuid4()),  # never the checkpoint of an earlier run
    )  # fmt: skip


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])  # of SD2.x
def test_training_learns_the_preference(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path, prediction
):
    _, history = train(tiny_unet, tiny_latents, alphas_cumprod, tmp_path, prediction=prediction)
    assert history[-1]["loss"] < 0.5 < history[0]["loss"] + 0.1
    assert history[-1]["rewards/accuracies"] > 0.7


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_trains(loss, tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    dpo = dataclasses.replace(DPO, loss=loss)
    longer = dataclasses.replace(SETTINGS, max_steps=40)  # IPO's target is far
    _, history = train(tiny_unet, tiny_latents, alphas_cumprod, tmp_path, dpo, longer)
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.fixture(scope="module")
def testbed_latents():
    return encode_pairs([pair(k) for k in range(6)], MODEL, 6, BENIGN)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_trains_the_testbed_and_is_documented(loss, testbed_latents, tmp_path):
    # a small recipe of the default profile's scale; every loss falls on the pairs it trains on
    dpo = DpoSettings(beta=500.0, mu=0.5, captions="both", prompt_dropout=0.0, loss=loss,
                      fixed_draws=1)  # fmt: skip
    settings = dataclasses.replace(SETTINGS, learning_rate=2e-3, max_steps=16, log_every=8)
    recipe = Recipe(LORA, dpo, dataclasses.replace(settings, checkpoint_every=16))
    schedule = load_noise_schedule(MODEL)
    _, history = train_lora(
        load_unet(MODEL), {"violence": testbed_latents}, schedule, recipe, tmp_path
    )
    assert history[-1]["loss"] < history[0]["loss"]
    assert f"`{loss}`" in (ROOT / "docs/training.md").read_text()


def test_held_out_pairs_are_measured_and_not_trained_on(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    _, held_out = hold_out(tiny_latents, 1)
    k = tiny_latents.pair_ids.index(held_out.pair_ids[0])
    poisoned = tiny_latents.rejected_mean.clone()
    poisoned[k] = 1e4  # training on it would show
    found = []
    for latents in (tiny_latents, dataclasses.replace(tiny_latents, rejected_mean=poisoned)):
        found.append(train(copy.deepcopy(tiny_unet), latents, alphas_cumprod, tmp_path,
                           watch=WatchSettings(1, 8)))  # fmt: skip
    (clean, history), (other, other_history) = found
    assert all(torch.equal(clean[n].delta, other[n].delta) for n in clean)
    assert history[-1]["loss"] == other_history[-1]["loss"]
    assert history[-1]["eval/error/rejected"] != other_history[-1]["eval/error/rejected"]
    assert {"eval/loss", "eval/rewards/accuracies"} <= history[0].keys() == history[-1].keys()


def test_joint_training_holds_out_what_the_experts_do(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path, monkeypatch
):
    other = dataclasses.replace(tiny_latents, pair_ids=["e", "f", "g", "h"])
    steps = []

    class Spy(PreferenceStep):
        def __init__(self, unet, latents, *rest, **settings):
            steps.append(latents.pair_ids)
            super().__init__(unet, latents, *rest, **settings)

    monkeypatch.setattr("pipeline.training.experts.PreferenceStep", Spy)
    train_lora(
        tiny_unet, {"hate": tiny_latents, "violence": other}, NoiseSchedule(alphas_cumprod,
        "epsilon"), Recipe(LORA, DPO, dataclasses.replace(SETTINGS, max_steps=2),
        WatchSettings(1, 2)), tmp_path / "c",
    )  # fmt: skip
    held_out = [hold_out(p, 1)[1].pair_ids[0] for p in (tiny_latents, other)]
    assert steps[1] == held_out
    assert sorted(steps[0] + held_out) == list("abcdefgh")


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
    wide = dataclasses.replace(tiny_latents, prompt_embeds=torch.zeros(9, 6, 16).half())
    with pytest.raises(InputError, match="text width 16, the UNet of base_model.path 4 and 8"):
        train(tiny_unet, wide, alphas_cumprod, tmp_path)


def test_a_reversed_preference_is_refused(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    swapped = dataclasses.replace(tiny_latents, margin=-tiny_latents.margin)
    with pytest.raises(InputError, match="the preference is reversed"):
        train(tiny_unet, swapped, alphas_cumprod, tmp_path)


def test_no_pairs_is_an_error(tiny_unet, tiny_latents, alphas_cumprod, tmp_path):
    with pytest.raises(InputError, match="hate has no pairs to train on"):
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
            copy.deepcopy(tiny_unet), {"hate": tiny_latents},
            NoiseSchedule(alphas_cumprod, "epsilon"),
            Recipe(lora, dataclasses.replace(DPO, fixed_draws=2), settings, WatchSettings(1, 2)),
            tmp_path / checkpoint,
        )[0]  # fmt: skip

    whole = run("whole")
    calls = []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 11:  # between the first checkpoint and the end
            raise KeyboardInterrupt
        return squared_error(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.training.preference.squared_error", dies)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    assert any((tmp_path / "cut").glob("step-*"))
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
        embeds = tiny_latents.prompt_embeds.float()
        safe, unsafe = embeds[1], embeds[5:]
        left[damping] = sum(
            ((safe @ d.delta.T).norm() / (unsafe @ d.delta.T).norm()).item()
            for d in trained.values()
        ) / len(trained)
    assert left[0.01] < 0.3 * left[None]
    assert learnt[0.01] > 0.6
