import pytest
import torch

from pipeline.artifacts import TESTBED
from pipeline.diffusion import NoiseSchedule, load_noise_schedule, load_unet
from pipeline.errors import InputError
from pipeline.sources import ModelSource

MODEL = ModelSource(str(TESTBED / "sd"))


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
