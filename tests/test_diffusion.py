import shutil

import numpy as np
import pytest

from pipeline.artifacts import LORA_FILE, TESTBED
from pipeline.diffusion import (
    Sampler,
    apply_lora,
    draw_images,
    load_alphas_cumprod,
    load_pipeline,
    load_unet,
)
from pipeline.errors import InputError

MODEL = str(TESTBED / "sd")


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
    for change in ({"seed": 2}, {"guidance": 1.5}, {"negative_prompt": "a red"}, {"steps": 5},
                   {"scheduler": "ddim"}):  # fmt: skip
        assert (draw(**change) != base).any(), change


def test_an_unknown_scheduler_lists_the_known(testbed_pipeline):
    with pytest.raises(InputError, match=r"unknown scheduler 'euler'; known: ddim, dpm\+\+"):
        draw_images(testbed_pipeline, ["p"], [0], Sampler("euler", 2, 1.0, 64))


def test_the_noise_schedule_is_the_models_own():
    alphas, prediction = load_alphas_cumprod(MODEL, None)
    assert prediction == "epsilon"
    assert alphas.shape == (1000,)
    assert alphas[0] == pytest.approx(1 - 0.00085, abs=1e-6)


def test_the_unet_is_loaded_frozen_in_float32():
    unet = load_unet(MODEL, None)
    assert {str(p.dtype) for p in unet.parameters()} == {"torch.float32"}
    assert not any(p.requires_grad for p in unet.parameters())


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "model_index.json"])
def test_a_damaged_model_is_named_with_the_remedy(tmp_path, part):
    shutil.copytree(MODEL, tmp_path / "sd")
    file = tmp_path / "sd" / part
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(
        InputError, match="cannot load a text-to-image pipeline from .*git checkout"
    ):
        load_pipeline(str(tmp_path / "sd"), None)


def test_a_missing_or_damaged_lora_is_named_with_the_remedy(testbed_pipeline, tmp_path):
    with pytest.raises(InputError, match=f"no LoRA file .*{LORA_FILE}; run `dvc repro`"):
        apply_lora(testbed_pipeline, tmp_path)
    (tmp_path / LORA_FILE).write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="is damaged or of another model"):
        apply_lora(testbed_pipeline, tmp_path)
