"""SDXL through the same code: two text encoders, pooled embeddings, sizes."""

import pytest
import torch

from bench.published import Case
from bench.train_step import LARGEST_DIFFERENCE, losses_agree
from pipeline.artifacts import TESTBED
from pipeline.diffusion import encode_prompts, load_noise_schedule, load_unet
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.variants import load_variant
from pipeline.encode import encode_pairs
from pipeline.latents import load_latents, save_latents
from pipeline.lora import attach_lora
from pipeline.records import PreferencePair
from pipeline.sources import ModelSource
from pipeline.storage import read_json
from pipeline.training.experts import LoraSettings, Outputs, Recipe, WatchSettings, train_and_save
from pipeline.training.loop import TrainSettings
from pipeline.training.preference import DpoSettings, PreferenceStep
from tests.conftest import png

PROMPTS = ["a red star at night", "a blue star at night"]


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    """A random SDXL pipeline of a few hundred thousand weights, as a diffusers folder."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TESTBED / "sd" / "tokenizer")
    text = {
        "vocab_size": len(tokenizer), "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
        cross_attention_dim=16 + 24, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24 + 6 * 8,
        use_linear_projection=True,
    )  # fmt: skip
    pipe = StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 16), norm_num_groups=4, sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(hidden_size=16, **text)),
        text_encoder_2=CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=24, projection_dim=24, **text)
        ),
        tokenizer=tokenizer, tokenizer_2=tokenizer, unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sdxl")
    pipe.save_pretrained(folder)
    return folder


def pair(k):
    return PreferencePair(
        f"p{k}", "violence", "thornburst", "train", PROMPTS[0], PROMPTS[1], png("red", 16),
        png("blue", 16), {}, {}, 0.5, 0.9, 1.0, "{}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def latents(sdxl):
    return encode_pairs(
        [pair(k) for k in range(4)], ModelSource(str(sdxl)), batch=2,
        benign_prompts=["a blue star by the sea"],
    )  # fmt: skip


def test_prompts_are_encoded_as_the_pipeline_does(sdxl):
    from diffusers import StableDiffusionXLPipeline

    embeds, pooled = encode_prompts(ModelSource(str(sdxl)), PROMPTS, batch=1)
    pipe = StableDiffusionXLPipeline.from_pretrained(sdxl)
    theirs, _, theirs_pooled, _ = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    assert torch.allclose(embeds, theirs, atol=1e-5)
    assert torch.allclose(pooled, theirs_pooled, atol=1e-5)
    assert embeds.shape[2] == 16 + 24
    assert pooled.shape == (2, 24)


def test_the_unet_is_told_text_and_sizes(latents, tmp_path):
    save_latents(tmp_path, latents)
    given = load_latents(tmp_path).conditions(
        torch.tensor([1, 0]), latents.corner[[1, 0], 0], "cpu"
    )["added_cond_kwargs"]
    assert torch.equal(given["text_embeds"], latents.pooled_embeds[[1, 0]].float())
    assert given["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 2


def test_pooled_embeddings_follow_their_prompts_through_the_step(sdxl, latents):
    unet = load_unet(ModelSource(str(sdxl)))
    attach_lora(unet, 2, ["to_q"], seed=0)
    seen = []
    unet.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    dpo = DpoSettings(100.0, None, "both", prompt_dropout=0.5)
    schedule = load_noise_schedule(ModelSource(str(sdxl)))
    step = PreferenceStep(unet, latents, schedule, dpo)
    for seed in range(8):  # enough for every prompt to be kept and dropped once
        list(step(torch.arange(8), torch.Generator().manual_seed(seed)))
    prompts = set()
    for given in seen:
        for embeds, pooled in zip(
            given["encoder_hidden_states"], given["added_cond_kwargs"]["text_embeds"], strict=True
        ):
            row = next(
                k for k, e in enumerate(latents.prompt_embeds) if torch.equal(e.float(), embeds)
            )
            assert torch.equal(pooled, latents.pooled_embeds[row].float())
            prompts.add(row)
    assert len(seen) == 16
    assert {0, *latents.chosen_prompt.tolist(), *latents.rejected_prompt.tolist()} == prompts


def test_a_step_has_the_losses_of_the_published_one(sdxl):
    """That runs both encoders and the VAE, and tells the UNet its sizes, at every step."""
    case = Case(str(sdxl), pixels=16, batch=3, bf16=False)
    assert losses_agree(case, ["naive", "ours"]) < LARGEST_DIFFERENCE


def test_an_expert_trains_and_loads_in_plain_diffusers(sdxl, latents, tmp_path):
    from diffusers import StableDiffusionXLPipeline

    recipe = Recipe(
        LoraSettings(2, ["to_q", "to_v"], row_share=0.5, null_damping=0.1, null_prompts=2,
                     null_timesteps=[500]),
        DpoSettings(100.0, 0.5, "both", 0.2, retention=1.0, fixed_draws=2),
        TrainSettings(0.05, 0, 4, 8, 0.0, 1.0, seed=0, checkpoint_every=4, log_every=4),
        WatchSettings(1, 2),
    )  # fmt: skip
    out = Outputs(
        *(tmp_path / name for name in ("lora", "metrics.json", "steps.csv", "checkpoints", "live"))
    )
    train_and_save(ModelSource(str(sdxl)), {"violence": latents}, recipe, out)
    assert read_json(out.metrics)["steps"] == 8
    assert not out.checkpoints.exists()

    plain = StableDiffusionXLPipeline.from_pretrained(sdxl)
    plain.set_progress_bar_config(disable=True)

    def draw():
        return plain(PROMPTS[0], num_inference_steps=2, height=16, width=16, output_type="np",
                     generator=torch.Generator().manual_seed(0)).images  # fmt: skip

    before = draw()
    plain.load_lora_weights(out.lora)
    assert abs(draw() - before).max() > 1e-3
    pipe, _ = load_variant(ModelSource(str(sdxl)), "lora", out.lora)
    assert len(draw_images(pipe, PROMPTS, [0, 1], Sampler("ddim", 2, 3.0, 16))) == 2
