import shutil
from functools import partial

import numpy as np
import pytest
import torch

from pipeline.artifacts import LORA_FILE, TESTBED
from pipeline.diffusion import load_noise_schedule, load_unet, load_vae
from pipeline.drawing.pipelines import (
    MEMORY,
    SCHEDULERS,
    apply_lora,
    draw_images,
    load_pipeline,
)
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.variants import load_variant
from pipeline.errors import InputError
from pipeline.lora import attach_lora, extract_lora, save_lora
from pipeline.sources import ModelSource

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
    with pytest.raises(InputError, match=r"unknown scheduler 'heun'; known: own, ddim, dpm\+\+"):
        draw_images(testbed_pipeline, ["p"], [0], Sampler("heun", 2, 1.0, 64))


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


def shrunk(family: str, folder):
    """A random pipeline of a family's shape, a few hundred thousand weights, as a folder."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TESTBED / "sd" / "tokenizer")
    second = family == "sd21"  # v-prediction, linear projections, heads of one width
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 16), norm_num_groups=4, sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
            cross_attention_dim=16, attention_head_dim=(2, 4) if second else 4,
            use_linear_projection=second,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        scheduler=DDIMScheduler(**noise, prediction_type="v_prediction", clip_sample=False)
        if second else PNDMScheduler(**noise, skip_prk_steps=True),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return ModelSource(str(folder))


@pytest.fixture(scope="module", params=["sd15", "sd21"])
def model(request, tmp_path_factory):
    return shrunk(request.param, tmp_path_factory.mktemp(request.param))


PROMPTS = [f"a {c} star in a meadow" for c in ("red", "blue", "green", "purple", "orange")]


def pixels(pipe, seeds=(1, 2, 3, 4, 5), **settings):
    sampler = Sampler(**{"scheduler": "dpm++", "steps": 3, "guidance": 3.0, "size": 16} | settings)
    drawn = draw_images(pipe, PROMPTS[: len(seeds)], list(seeds), sampler)
    return np.stack([np.asarray(image) for image in drawn]).astype(int)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_draws_and_a_row_follows_from_its_own_seed(model, scheduler):
    pipe = load_pipeline(model)
    images = pixels(pipe, scheduler=scheduler)
    assert images.std() > 1
    others = pixels(pipe, seeds=(9, 2, 8, 4, 7), scheduler=scheduler)
    assert abs(images[[1, 3]] - others[[1, 3]]).max() <= 1
    assert (images[0] != others[0]).any()
    assert pipe.scheduler.config.prediction_type == load_noise_schedule(model).prediction_type


def test_the_models_own_schedule_is_what_every_scheduler_starts_from(model):
    pipe = load_pipeline(model)
    before = pixels(pipe, scheduler="euler")
    spacing = pipe.scheduler.config.timestep_spacing
    pixels(pipe, scheduler="lightning")
    assert pipe.scheduler.config.timestep_spacing == "trailing" != spacing
    assert (pixels(pipe, scheduler="euler") == before).all()


def test_v_prediction_reaches_the_scheduler(tmp_path):
    """An epsilon scheduler on a v-prediction model draws noise, and nobody is told."""
    pipe = load_pipeline(shrunk("sd21", tmp_path))
    right = pixels(pipe)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    pipe.scheduler.register_to_config(prediction_type="epsilon")
    assert abs(pixels(pipe) - right).max() > 5


@pytest.mark.parametrize("option", MEMORY)
def test_less_memory_draws_the_same_pictures(model, option):
    plain = pixels(load_pipeline(model))
    saving = load_pipeline(model)
    assert abs(pixels(saving, memory=(option,)) - plain).max() <= 1
    if option == "attention_slicing":
        kinds = {type(p).__name__ for p in saving.unet.attn_processors.values()}
        assert kinds == {"SlicedAttnProcessor"}
    else:
        assert getattr(saving.vae, f"use_{option.removeprefix('vae_')}")


def test_a_compiled_unet_draws_the_same_pictures(model, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self)))
    pipe = load_pipeline(model)
    pixels(pipe, compile=True)
    pixels(pipe, compile=True)
    assert compiled == [type(pipe.unet)]  # once, not at every batch


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a CPU refuses")
def test_precision_is_what_is_asked_for(model):
    assert {p.dtype for p in load_pipeline(model).unet.parameters()} == {torch.float32}
    pipe = load_pipeline(model, precision="bf16")
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.bfloat16}
    assert abs(pixels(pipe) - pixels(load_pipeline(model))).mean() < 8
    with pytest.raises(InputError, match="images.precision fp16 needs a GPU"):
        load_pipeline(model, precision="fp16")


class Cramped:
    """Stands in for a pipeline's call: memory suffices for some images only."""

    def __init__(self, pipe, fits):
        self.pipe, self.fits, self.asked = pipe, fits, []

    def __call__(self, whole, **call):
        self.asked.append(len(call["prompt"]))
        if len(call["prompt"]) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self.pipe, **call)


HALVED = [5, 2, 2, 1, 2, 2, 1]  # batches asked for, over two calls
TWICE = [5, 2, *[1] * 5, *[1] * 5]


@pytest.mark.parametrize("fits, asked", [(2, HALVED), (1, TWICE)])
def test_too_large_a_batch_is_halved_for_good_and_said(model, monkeypatch, caplog, fits, asked):
    pipe = load_pipeline(model)
    plain = pixels(pipe)
    whole, cramped = type(pipe).__call__, Cramped(pipe, fits)
    monkeypatch.setattr(type(pipe), "__call__", lambda self, **call: cramped(whole, **call))
    assert abs(pixels(pipe) - plain).max() <= 1
    assert abs(pixels(pipe) - plain).max() <= 1
    assert cramped.asked == asked
    said = [r.getMessage() for r in caplog.records if "memory does not suffice" in r.getMessage()]
    assert len(said) == (1 if fits == 2 else 2)
    assert "to draw images 5 at once: going on with 2, whose last bits may differ; set " in said[0]


def test_memory_for_not_even_one_image_is_an_error_with_a_remedy(model, monkeypatch):
    pipe = load_pipeline(model)
    cramped = Cramped(pipe, fits=0)
    monkeypatch.setattr(type(pipe), "__call__", lambda self, **call: cramped(None, **call))
    with pytest.raises(
        InputError,
        match="draw images one at a time; lower images.size, or set images.memory to .attention",
    ):
        pixels(pipe)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate")]
)
def test_a_lack_of_memory_on_a_cpu_is_known_as_one(model, monkeypatch, error):
    pipe, whole, errors = load_pipeline(model), type(load_pipeline(model)).__call__, [error]

    def cramped(self, **call):
        if errors:
            raise errors.pop()
        return whole(self, **call)

    monkeypatch.setattr(type(pipe), "__call__", cramped)
    assert pixels(pipe).shape == (5, 16, 16, 3)


def test_another_error_of_the_pipeline_is_not_taken_for_a_lack_of_memory(model, monkeypatch):
    pipe = load_pipeline(model)

    def broken(self, **_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(pipe), "__call__", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        pixels(pipe)
