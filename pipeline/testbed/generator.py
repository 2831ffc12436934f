"""Trains the bundled Stable-Diffusion-shaped pipeline: VAE, then text encoder and UNet together."""

import copy
import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipeline.testbed import world
from pipeline.testbed.tokens import CAPTION_TOKENS, save_caption_tokenizer

log = logging.getLogger(__name__)
SNR_GAMMA = 5.0  # min-SNR weighting, arXiv 2303.09556


def draw_scenes(count: int, seed: int) -> tuple[Tensor, list[world.Scene]]:
    """``count`` random scenes: images (count, 3, 64, 64) uint8 and the scenes themselves."""
    rng = np.random.default_rng(seed)
    scenes = [world.sample_scene(rng, world.sample_companion(rng)) for _ in range(count)]
    images = np.stack([np.asarray(world.render(s)) for s in tqdm(scenes, desc="render")])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), scenes


def to_model_range(images: Tensor) -> Tensor:
    """uint8 images to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def train_vae(folder: Path, scenes: int, steps: int, batch: int, seed: int) -> None:
    """Train the f=8, 16-channel VAE on rendered scenes and save it to ``folder``/vae."""
    images, _ = draw_scenes(scenes, seed)
    torch.manual_seed(seed)
    blocks = (16, 32, 64, 64)
    vae = AutoencoderKL(
        latent_channels=16, block_out_channels=blocks, layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=world.SIZE,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.05)
    rng = torch.Generator().manual_seed(seed)
    progress = tqdm(range(steps), desc="vae")
    for _ in progress:
        x = to_model_range(images[torch.randint(len(images), (batch,), generator=rng)])
        posterior = vae.encode(x).latent_dist
        decoded = vae.decode(posterior.sample(rng)).sample
        pixel = F.l1_loss(decoded, x) + F.mse_loss(decoded, x)
        loss = pixel + 1e-5 * posterior.kl().mean() / posterior.mean[0].numel() * 64
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{pixel.item():.4f}")
    mean, std = encode_posteriors(vae, images[:1024])
    vae.register_to_config(scaling_factor=float(1 / (mean**2 + std**2).mean().sqrt()))
    vae.save_pretrained(folder / "vae")


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, down and right: what blur takes away."""
    return x.diff(dim=2), x.diff(dim=3)


def sharpen_decoder(folder: Path, scenes: int, steps: int, batch: int, seed: int) -> None:
    """Train the decoder further with an edge loss; latents, and so the UNet, stay as they are."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").requires_grad_(False)
    images, _ = draw_scenes(scenes, seed + 5)
    mean, std = encode_posteriors(vae, images)
    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps, pct_start=0.05)
    rng = torch.Generator().manual_seed(seed)
    progress = tqdm(range(steps), desc="decoder")
    for _ in progress:
        rows = torch.randint(scenes, (batch,), generator=rng)
        latents = mean[rows] + std[rows] * torch.randn(mean[rows].shape, generator=rng)
        x, decoded = to_model_range(images[rows]), vae.decode(latents).sample
        pixel = F.l1_loss(decoded, x) + F.mse_loss(decoded, x)
        edge = sum(F.l1_loss(a, b) for a, b in zip(edges(decoded), edges(x), strict=True))
        optimizer.zero_grad()
        (pixel + edge).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{pixel.item():.4f}")
    vae.half().save_pretrained(folder / "vae")


@torch.no_grad()
def encode_posteriors(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and std, each (n, 16, 8, 8), unscaled."""
    dists = [vae.encode(to_model_range(chunk)).latent_dist
             for chunk in tqdm(images.split(128), desc="encode")]  # fmt: skip
    return torch.cat([d.mean for d in dists]), torch.cat([d.std for d in dists])


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The bundled text encoder's architecture, randomly initialised."""
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=CAPTION_TOKENS, projection_dim=128,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def new_unet() -> UNet2DConditionModel:
    """The bundled UNet's architecture, randomly initialised."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=16, out_channels=16, block_out_channels=(64, 128),
        layers_per_block=1, cross_attention_dim=128, attention_head_dim=4, norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    )  # fmt: skip


def train_unet(folder: Path, scenes: int, steps: int, horizon: int, batch: int, seed: int) -> None:
    """Train text encoder and UNet on cached latents; saves the EMA as a whole pipeline.

    The learning rate follows one cycle over ``horizon`` steps, of which the first ``steps`` are
    taken: the averaged weights are crisp long before the rate has come down. A snapshot is saved
    every 1000 steps.
    """
    save_caption_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    images, drawn = draw_scenes(scenes, seed + 1)
    mean, std = encode_posteriors(vae, images)
    captions = [world.caption(s, form) for s in drawn for form in (0, 1)]
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=CAPTION_TOKENS,
                       return_tensors="pt").input_ids.view(scenes, 2, -1)  # fmt: skip
    empty = tokenizer("", padding="max_length", max_length=CAPTION_TOKENS,
                      return_tensors="pt").input_ids[0]  # fmt: skip
    torch.manual_seed(seed)
    models = torch.nn.ModuleDict({"unet": new_unet(), "text": new_text_encoder(tokenizer)})
    ema = copy.deepcopy(models).requires_grad_(False)
    noising = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    snr = noising.alphas_cumprod / (1 - noising.alphas_cumprod)
    optimizer = torch.optim.AdamW(models.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, horizon, pct_start=0.05)
    rng = torch.Generator().manual_seed(seed)
    progress = tqdm(range(steps), desc="unet")
    smooth = 0.0
    for step in progress:
        rows = torch.randint(scenes, (batch,), generator=rng)
        latents = mean[rows] + std[rows] * torch.randn(mean[rows].shape, generator=rng)
        latents = latents * vae.config.scaling_factor
        ids = tokens[rows, torch.randint(2, (batch,), generator=rng)].clone()
        ids[torch.rand(batch, generator=rng) < 0.1] = empty  # for classifier-free guidance
        t = torch.randint(1000, (batch,), generator=rng)
        noise = torch.randn(latents.shape, generator=rng)
        states = models["text"](ids).last_hidden_state
        predicted = models["unet"](noising.add_noise(latents, noise, t), t, states).sample
        weight = snr[t].clamp(max=SNR_GAMMA) / snr[t]
        loss = (weight * (predicted - noise).square().mean((1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(models.parameters()), 1 - decay)
        smooth = 0.99 * smooth + 0.01 * loss.item()
        progress.set_postfix(loss=f"{smooth / (1 - 0.99 ** (step + 1)):.4f}")
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            _save_pipeline(folder, vae, tokenizer, ema)


def _save_pipeline(folder: Path, vae, tokenizer, models: torch.nn.ModuleDict) -> None:
    """Write the diffusers layout: VAE and UNet in fp16, the text encoder in fp32.

    transformers loads a checkpoint in the dtype it was saved in, diffusers in float32; so the
    text encoder stays fp32 and every part runs in one dtype.
    """
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=copy.deepcopy(vae).half(), text_encoder=models["text"], tokenizer=tokenizer,
        unet=copy.deepcopy(models["unet"]).half(), scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    log.info("saved %s", folder)
