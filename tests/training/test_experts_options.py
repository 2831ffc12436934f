"""Ways to train that change speed, memory or the adapter's form; test_experts.py has the rest."""

import copy
import dataclasses

import pytest
import torch

from pipeline.artifacts import LORA_FILE
from pipeline.errors import InputError
from pipeline.lora import load_lora, save_lora
from pipeline.merging.preparation import check_experts
from pipeline.training.experts import WatchSettings
from pipeline.training.preference import PreferenceStep
from tests.training.test_experts import DPO, LORA, SETTINGS, train


def test_bf16_and_checkpointing_train_the_same_fp32_weights(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    short, found = dataclasses.replace(SETTINGS, max_steps=6), {}
    for name, change in (
        ("plain", {}), ("checkpointing", {"gradient_checkpointing": True}),
        ("bf16", {"precision": "bf16"}),
    ):  # fmt: skip
        unet = copy.deepcopy(tiny_unet)
        lora, history = train(
            unet, tiny_latents, alphas_cumprod, tmp_path,
            settings=dataclasses.replace(short, **change),
        )  # fmt: skip
        found[name] = lora, history[-1]["loss"]
        assert unet.is_gradient_checkpointing == (name == "checkpointing")
        frozen = [p for p in unet.parameters() if not p.requires_grad]
        matrices = {p.dtype for p in frozen if p.ndim > 1}
        assert matrices == {torch.bfloat16 if name == "bf16" else torch.float32}
        assert {p.dtype for p in frozen if p.ndim == 1} == {torch.float32}  # norms and biases
    plain, loss = found["plain"]
    for layer, value in plain.items():
        assert torch.allclose(found["checkpointing"][0][layer].delta, value.delta, atol=1e-5)
        trained = found["bf16"][0][layer].up
        assert not torch.equal(trained, trained.bfloat16().float())  # kept in fp32
    # one batch's loss is noisy with few latents; what was learnt is the same on every processor
    flat = {name: torch.cat([value.delta.flatten() for value in lora.values()])
            for name, (lora, _) in found.items()}  # fmt: skip
    assert torch.cosine_similarity(flat["bf16"], flat["plain"], dim=0) > 0.95
    assert found["bf16"][1] != loss


def test_a_batch_in_parts_trains_the_same_weights_with_fewer_rows_in_memory(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    short, found, seen = dataclasses.replace(SETTINGS, max_steps=6), {}, {}
    for micro in (None, 2):
        unet, sizes = copy.deepcopy(tiny_unet), set()
        unet.register_forward_pre_hook(
            lambda _, __, given, sizes=sizes: sizes.add(len(given["sample"])), with_kwargs=True
        )
        found[micro], _ = train(
            unet, tiny_latents, alphas_cumprod, tmp_path / str(micro),
            settings=dataclasses.replace(short, micro_batch=micro),
        )  # fmt: skip
        seen[micro] = max(sizes)
    assert seen == {None: 2 * SETTINGS.batch, 2: 4}  # both sides of each row
    for layer, value in found[None].items():
        assert torch.allclose(found[2][layer].delta, value.delta, atol=1e-5)


def test_compiled_training_is_the_same_training(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path, monkeypatch
):
    # traced and guarded as ever, but not handed to a C compiler, which takes minutes
    seen, compiler = [], torch.compile

    def trace(function):
        seen.append(function.__name__)
        return compiler(function, backend="eager")

    monkeypatch.setattr(torch, "compile", trace)
    short = dataclasses.replace(SETTINGS, max_steps=3)
    dpo = dataclasses.replace(DPO, fixed_draws=2)
    plain, compiled = (
        train(
            copy.deepcopy(tiny_unet), tiny_latents, alphas_cumprod, tmp_path, dpo,
            dataclasses.replace(short, compile=on), watch=WatchSettings(1, 2),
        )
        for on in (False, True)
    )  # fmt: skip
    for name, layer in plain[0].items():
        assert torch.allclose(compiled[0][name].delta, layer.delta, atol=1e-4), name
    assert compiled[1][-1] == pytest.approx(plain[1][-1], rel=1e-3, abs=1e-3)
    assert seen == ["policy", "reference"] * 2  # of training and of held-out pairs


def test_a_dora_trains_and_draws_in_diffusers_as_it_was_trained(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    fresh = copy.deepcopy(tiny_unet)
    lora = dataclasses.replace(LORA, dora=True, alpha=8.0)
    trained, history = train(tiny_unet, tiny_latents, alphas_cumprod, tmp_path, lora=lora)
    assert history[-1]["loss"] < 0.6
    given = (torch.randn(2, 4, 4, 4), torch.tensor([10, 500]), torch.randn(2, 6, 8))
    with torch.no_grad():
        before, ours = fresh(*given).sample, tiny_unet(*given).sample
        save_lora(tmp_path / "dora", trained, {})
        fresh.load_lora_adapter(
            tmp_path / "dora", prefix="unet", weight_name=LORA_FILE, use_safetensors=True
        )
        theirs = fresh(*given).sample
    assert abs(ours - before).max() > 0.05
    assert torch.allclose(theirs, ours, atol=1e-4)
    magnitudes = [layer.magnitude for layer in load_lora(tmp_path / "dora")[0].values()]
    assert all(m.ndim == 1 for m in magnitudes)
    with pytest.raises(
        InputError, match="expert a is a DoRA and cannot be merged.*experts.lora.dora: false"
    ):
        check_experts({"a": trained})


def test_memory_that_runs_out_is_an_error_that_says_what_to_change(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path, monkeypatch
):
    def full(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(PreferenceStep, "rehearse", full)
    with pytest.raises(InputError, match="does not fit into memory .*experts.optim.micro_batch"):
        train(tiny_unet, tiny_latents, alphas_cumprod, tmp_path)


def test_what_is_kept_acts_as_what_was_trained_whatever_alpha(
    tiny_unet, tiny_latents, alphas_cumprod, tmp_path
):
    short = dataclasses.replace(SETTINGS, max_steps=3)
    lora, _ = train(tiny_unet, tiny_latents, alphas_cumprod, tmp_path, settings=short,
                    lora=dataclasses.replace(LORA, alpha=12.0))  # fmt: skip
    layers = {n: m for n, m in tiny_unet.named_modules() if n in lora}
    for name, layer in layers.items():
        x = torch.randn(3, layer.base_layer.in_features)
        added = layer(x) - layer.base_layer(x)
        assert torch.allclose(added, x @ lora[name].delta.T, atol=1e-5), name
