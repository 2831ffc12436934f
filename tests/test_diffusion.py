import shutil
from functools import partial

import numpy as np
import pytest
import torch

from pipeline.artifacts import LORA_FILE, TESTBED
from pipeline.diffusion import NoiseSchedule, load_noise_schedule, load_unet, load_vae
from pipeline.drawing import apply_lora, draw_images, load_pipeline
from pipeline.errors import InputError
from pipeline.lora import attach_lora, extract_lora, save_lora
from pipeline.sampler import Sampler
from pipeline.sources import ModelSource
from pipeline.variants import load_variant

MODEL = ModelSource(str(TESTBED / "sd"))


def test_guidance_seed_and_negative_prompt_shape_the_image(testbed_pipeline):
    def draw(seed=1, **settings):
        sampler = Sampler(
            **{"scheduler": "dpm++", "steps": 4, "guidance": 3.0, "size": 64} | settings
        )
        return np.asarray(
            draw_images(testbed_pipeline, ["a red star at night"], [seed], sampler)[0]
        )

    base = draw()
    assert (draw() == base).all()
    assert draw(height=32).shape == (32, 64, 3)
    for change in ({"seed": 2}, {"guidance": 1.5}, {"negative_prompt": "a red"}, {"steps": 5},
                   {"scheduler": "ddim"}):  # fmt: skip
        assert (draw(**change) != base).any(), change


def test_a_picture_that_is_not_finite_is_an_error_and_not_black():
    pipe = load_pipeline(MODEL)
    next(iter(pipe.unet.parameters())).data.fill_(float("nan"))
    with pytest.raises(
        InputError, match="draws NaN from seed 7: its weights, or a LoRA's, are dam"
    ):
        draw_images(pipe, ["a red star at night"], [7], Sampler("ddim", 1, 1.0, 64))


def test_an_unknown_scheduler_lists_the_known(testbed_pipeline):
    with pytest.raises(InputError, match=r"unknown scheduler 'euler'; known: ddim, dpm\+\+"):
        draw_images(testbed_pipeline, ["p"], [0], Sampler("euler", 2, 1.0, 64))


def test_the_noise_schedule_is_the_models_own():
    schedule = load_noise_schedule(MODEL)
    assert schedule.prediction_type == "epsilon"
    assert schedule.alphas_cumprod.shape == (1000,)
    assert schedule.alphas_cumprod[0] == pytest.approx(1 - 0.00085, abs=1e-6)


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


def test_the_unet_is_loaded_frozen_in_float32():
    unet = load_unet(MODEL)
    assert {str(p.dtype) for p in unet.parameters()} == {"torch.float32"}
    assert not any(p.requires_grad for p in unet.parameters())


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "model_index.json"])
def test_a_damaged_model_is_named_with_the_remedy(tmp_path, part):
    shutil.copytree(MODEL.path, tmp_path / "sd")
    file = tmp_path / "sd" / part
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(
        InputError, match="cannot load a text-to-image pipeline from .*git checkout"
    ):
        load_pipeline(ModelSource(str(tmp_path / "sd")))


def test_a_missing_or_damaged_lora_is_named_with_the_remedy(testbed_pipeline, tmp_path):
    with pytest.raises(InputError, match=f"no LoRA file .*{LORA_FILE}; run `dvc repro`"):
        apply_lora(testbed_pipeline, tmp_path)
    (tmp_path / LORA_FILE).write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="is damaged or of another model"):
        apply_lora(testbed_pipeline, tmp_path)


def test_a_models_identity_follows_its_weights(tmp_path):
    source = ModelSource(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"a")
    first = source.identity
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert source.identity != first
    assert ModelSource("hub/model", "abc").identity == "abc"
    with pytest.raises(InputError, match="base_model.path 'hub/model' .* needs base_model.rev"):
        _ = ModelSource("hub/model").identity
    other = ModelSource("hub/model", "abc", "hub/vae", "def")
    assert other.identity == "abc+vae-def"
    with pytest.raises(InputError, match="base_model.vae 'hub/vae' .* needs base_model.vae_rev"):
        _ = ModelSource("hub/model", "abc", "hub/vae").identity


def test_another_vae_takes_the_place_of_the_models_own(tmp_path):
    vae = load_vae(MODEL)
    for parameter in vae.parameters():
        parameter.data *= 0.5
    vae.save_pretrained(tmp_path)
    source = ModelSource(MODEL.path, vae=str(tmp_path))
    changed, own = load_vae(source).state_dict(), load_vae(MODEL).state_dict()
    assert all(torch.allclose(changed[k], own[k] * 0.5) for k in own)
    drawn = load_pipeline(source).vae.state_dict()
    assert all(torch.equal(drawn[k].float(), changed[k]) for k in own)


def test_a_fused_lora_draws_what_plain_diffusers_draws_with_it(tmp_path):
    unet = load_unet(MODEL)
    parameters = attach_lora(unet, 4, ["to_q", "to_v"], seed=0)
    for parameter in parameters.values():
        parameter.data += 0.05
    save_lora(tmp_path, extract_lora(parameters), {})
    sampler, plain = Sampler("dpm++", 4, 3.0, 64), load_pipeline(MODEL)
    draw = partial(draw_images, prompts=["a red star at night"], seeds=[1], sampler=sampler)
    before = np.asarray(draw(plain)[0]).astype(int)
    plain.load_lora_weights(tmp_path)
    theirs = np.asarray(draw(plain)[0]).astype(int)
    ours = np.asarray(draw(load_variant(MODEL, "lora", tmp_path)[0])[0]).astype(int)
    assert abs(theirs - before).max() > 50
    assert abs(ours - theirs).max() <= 2


def test_a_lora_with_nothing_for_the_unet_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"transformer.blocks.0.attn.to_q.lora_A.weight": torch.ones(1, 4),
               "transformer.blocks.0.attn.to_q.lora_B.weight": torch.ones(4, 1)},
              tmp_path / LORA_FILE)  # fmt: skip
    pipe = load_pipeline(MODEL)
    with pytest.raises(InputError, match="nothing for the UNet of this model|of another model"):
        apply_lora(pipe, tmp_path)
