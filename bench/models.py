"""Random models of published sizes, to measure speed on: ``python -m bench.models sd15 FOLDER``.

Nothing of theirs is learnt; shapes, and so time and memory, are those of Stable Diffusion 1.5 or
SDXL. Prompts are tokenized by the testbed's tokenizer, padded to its own length.
"""

import argparse
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from pipeline.artifacts import TESTBED

TEXT_TOKENS = 77


def sd15_unet() -> UNet2DConditionModel:
    """860 M parameters."""
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def _tokenizer() -> CLIPTokenizer:
    tokenizer = CLIPTokenizer.from_pretrained(TESTBED / "sd" / "tokenizer")
    tokenizer.model_max_length = TEXT_TOKENS
    return tokenizer


def _text(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=TEXT_TOKENS, projection_dim=width,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip


def _vae(pixels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=pixels,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


def _scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def sd15() -> StableDiffusionPipeline:
    """860 M parameters of UNet, 84 M of VAE, 123 M of text encoder."""
    tokenizer = _tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(512), text_encoder=CLIPTextModel(_text(tokenizer, 768, 12, 12)),
        tokenizer=tokenizer, unet=sd15_unet(), scheduler=_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> StableDiffusionXLPipeline:
    """2.6 G parameters of UNet, 84 M of VAE, 0.8 G of two text encoders."""
    tokenizer = _tokenizer()
    unet = UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
        cross_attention_dim=768 + 1280, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1280 + 6 * 256,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=_vae(1024), text_encoder=CLIPTextModel(_text(tokenizer, 768, 12, 12)),
        text_encoder_2=CLIPTextModelWithProjection(_text(tokenizer, 1280, 32, 20)),
        tokenizer=tokenizer, tokenizer_2=tokenizer, unet=unet, scheduler=_scheduler(),
    )  # fmt: skip


MODELS = {"sd15": sd15, "sdxl": sdxl}


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    MODELS[args.model]().save_pretrained(args.folder)


if __name__ == "__main__":
    main()
