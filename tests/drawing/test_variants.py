import shutil

import numpy as np
import pytest
import torch

from pipeline.artifacts import LORA_FILE, TESTBED
from pipeline.diffusion import load_unet
from pipeline.drawing.pipelines import draw_images, load_pipeline, to_kohya
from pipeline.drawing.safe_latents import PRESETS
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.variants import load_variant, variant_sampler
from pipeline.errors import InputError
from pipeline.lora import attach_lora, extract_lora, lora_tensors, save_lora
from pipeline.sources import ModelSource

MODEL = ModelSource(str(TESTBED / "sd"))
SAMPLER = Sampler("dpm++", 3, 2.5, 64)


def draw(pipe, sampler=SAMPLER):
    image = draw_images(pipe, ["a red star at night with a thornburst"], [1], sampler)[0]
    return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def lora():
    """A LoRA that changes pictures clearly."""
    torch.manual_seed(0)
    parameters = attach_lora(load_unet(MODEL), 2, ["to_q", "to_v"], seed=0)
    for parameter in parameters.values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return extract_lora(parameters)


def test_loras_of_three_layouts_draw_the_same(lora, tmp_path):
    """Ours by folder, and as files of others: diffusers without provenance, and kohya."""
    from safetensors.torch import save_file

    save_lora(tmp_path / "ours", lora, {"provenance": "x"})
    save_file(lora_tensors(lora), tmp_path / "foreign.safetensors")
    save_file(to_kohya(lora_tensors(lora)), tmp_path / "kohya.safetensors")
    paths = [tmp_path / name for name in ("ours", "foreign.safetensors", "kohya.safetensors")]
    loaded = [load_variant(MODEL, "lora", path) for path in paths]
    pictures = [draw(pipe) for pipe, _ in loaded]
    assert abs(pictures[0] - draw(load_variant(MODEL, "base", tmp_path)[0])).max() > 30
    assert abs(pictures[1] - pictures[0]).max() <= 1
    assert abs(pictures[2] - pictures[0]).max() <= 2
    assert len({identity for _, identity in loaded}) == 3


def test_another_unet_takes_the_place_of_the_base_models(lora, tmp_path):
    pipe, _ = load_variant(MODEL, "base", tmp_path)
    save_lora(tmp_path / "lora", lora, {})
    aligned, _ = load_variant(MODEL, "lora", tmp_path / "lora")
    aligned.unet.save_pretrained(tmp_path / "unet")
    other, identity = load_variant(MODEL, "checkpoint", tmp_path / "unet")
    assert abs(draw(other) - draw(aligned)).max() <= 1
    assert abs(draw(other) - draw(pipe)).max() > 30
    assert identity.startswith(f"{MODEL.identity}+")


def test_a_whole_model_is_loaded_from_its_folder(tmp_path):
    shutil.copytree(MODEL.path, tmp_path / "sd")
    pipe, identity = load_variant(MODEL, "checkpoint", tmp_path / "sd")
    assert (draw(pipe) == draw(load_pipeline(MODEL))).all()
    assert identity == ModelSource(str(tmp_path / "sd")).identity
    own_vae = ModelSource(MODEL.path, vae=f"{MODEL.path}/vae")
    assert load_variant(own_vae, "checkpoint", tmp_path / "sd")[1] != identity


def test_a_unet_of_another_shape_is_refused(tmp_path, tiny_unet):
    tiny_unet.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot load the weights .*in_channels 4, the base model"):
        load_variant(MODEL, "checkpoint", tmp_path)


def test_a_hub_id_needs_its_revision(tmp_path):
    with pytest.raises(InputError, match="a variant's path 'some/model' .*needs a revision"):
        load_variant(MODEL, "checkpoint", tmp_path, hub="some/model")


def test_a_damaged_checkpoint_and_a_missing_lora_are_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="cannot load the weights from .*model.safetensors"):
        load_variant(MODEL, "checkpoint", tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"no LoRA file .*{LORA_FILE}"):
        load_variant(MODEL, "lora", tmp_path)


def test_a_variant_adds_a_negative_prompt_or_safe_latents(testbed_pipeline):
    steered = {"concept": "thornburst", **PRESETS["max"]}
    samplers = [variant_sampler(SAMPLER, *adds)
                for adds in (("", None), ("thornburst", None), ("", steered))]  # fmt: skip
    assert samplers[0] == SAMPLER
    assert samplers[2].describe()["safe_latents"]["concept"] == "thornburst"
    assert "safe_latents" not in SAMPLER.describe()
    plain, negative, safe = (draw(testbed_pipeline, sampler) for sampler in samplers)
    assert (plain != negative).any() and (plain != safe).any() and (negative != safe).any()
