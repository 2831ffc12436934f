"""Random models of published sizes, to measure speed on: ``python -m bench.models sd15 FOLDER``.

Nothing of theirs is learnt; shapes, and so time and memory, are Stable Diffusion 1.5's. Prompts are
tokenized by the testbed's tokenizer, padded to its own length.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipeline.artifacts import TESTBED

TEXT_TOKENS = 77


def sd15_unet() -> UNet2DConditionModel:
    """860 M parameters."""
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def sd15() -> StableDiffusionPipeline:
    """860 M parameters of UNet, 84 M of VAE, 123 M of text encoder."""
    tokenizer = CLIPTokenizer.from_pretrained(TESTBED / "sd" / "tokenizer")
    tokenizer.model_max_length = TEXT_TOKENS
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, max_position_embeddings=TEXT_TOKENS,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=CLIPTextModel(text), tokenizer=tokenizer,
        unet=sd15_unet(),
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


MODELS = {"sd15": sd15}


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
