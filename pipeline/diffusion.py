"""Text-to-image models in parts, as training and encoding use them; ``drawing`` draws with them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import InputError, first_line, reload_or_check
from pipeline.sources import ModelSource

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
    from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """A model's training noise."""

    alphas_cumprod: "Tensor"  # (timesteps,) cumulative signal levels
    prediction_type: str  # "epsilon" or "v_prediction"

    def noised(
        self, clean: "Tensor", noise: "Tensor", timesteps: "Tensor"
    ) -> tuple["Tensor", "Tensor"]:
        """Noisy latents and what the UNet is trained to predict of them, (batch, c, h, w) each.

        Raises InputError for another prediction type.
        """
        signal = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        if self.prediction_type == "epsilon":
            return noisy, noise
        if self.prediction_type == "v_prediction":
            return noisy, signal.sqrt() * noise - (1 - signal).sqrt() * clean
        raise InputError(
            f"base_model.path: the scheduler's prediction_type "
            f"{self.prediction_type!r} is not known"
        )


@contextmanager
def readable(path: str, part: str) -> Iterator[None]:
    """Turn the many errors of a missing or damaged checkpoint into one the user can act on."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"cannot load {part} from {path}: {first_line(error)}. {reload_or_check('base_model')}"
        ) from error


# the checker would blank the very images that preference data and measurements need
UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}


def open_pipeline(
    source: ModelSource, dtype: "torch.dtype", **parts: object
) -> "DiffusionPipeline":
    from diffusers import AutoPipelineForText2Image
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with readable(source.path, "a text-to-image pipeline"):
        return AutoPipelineForText2Image.from_pretrained(
            source.path, revision=source.revision, use_safetensors=True, dtype=dtype, **parts
        )


def load_unet(source: ModelSource) -> "UNet2DConditionModel":
    """The model's UNet in float32, frozen."""
    import torch
    from diffusers import UNet2DConditionModel

    with readable(source.path, "the UNet"):
        unet = UNet2DConditionModel.from_pretrained(
            source.path, subfolder="unet", revision=source.revision, use_safetensors=True
        )
    return unet.requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def load_noise_schedule(source: ModelSource) -> NoiseSchedule:
    """The noise that the model was trained with."""
    from diffusers import DDPMScheduler

    with readable(source.path, "the scheduler"):
        scheduler = DDPMScheduler.from_pretrained(
            source.path, subfolder="scheduler", revision=source.revision
        )
    return NoiseSchedule(scheduler.alphas_cumprod, scheduler.config.prediction_type)


def load_vae(source: ModelSource) -> "AutoencoderKL":
    """The VAE in float32, frozen: the source's own one, or the model's."""
    from diffusers import AutoencoderKL

    where, revision, part = source.path, source.revision, {"subfolder": "vae"}
    if source.vae is not None:
        where, revision, part = source.vae, source.vae_revision, {}
    with readable(where, "the VAE"):
        vae = AutoencoderKL.from_pretrained(where, revision=revision, use_safetensors=True, **part)
    return vae.requires_grad_(False)


def encode_prompts(
    source: ModelSource, prompts: Sequence[str], batch: int
) -> tuple["Tensor", "Tensor"]:
    """Text as the UNet sees it, float32 on the CPU.

    Where the model was trained with zeros in place of the empty prompt, as SDXL says of itself, it
    is zeros here too.

    Returns:
        Embeddings (prompts, tokens, width), and pooled ones (prompts, pooled width), whose width is
        0 for models that have none. SDXL's two encoders are joined as its pipeline joins them.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = open_pipeline(source, torch.float32, unet=None, vae=None, **UNCHECKED).to(device)
    embeds, pooled = [], []
    with torch.no_grad():
        for start in range(0, len(prompts), batch):
            # StableDiffusionPipeline gives (embeds, negative), StableDiffusionXLPipeline
            # (embeds, negative, pooled, negative pooled)
            given = pipe.encode_prompt(
                prompt=list(prompts[start : start + batch]), device=device,
                num_images_per_prompt=1, do_classifier_free_guidance=False,
            )  # fmt: skip
            embeds.append(given[0].cpu())
            pooled.append(given[2].cpu() if len(given) == 4 else torch.zeros(len(given[0]), 0))
    tables = torch.cat(embeds), torch.cat(pooled)
    if getattr(pipe.config, "force_zeros_for_empty_prompt", False):
        empty = [k for k, prompt in enumerate(prompts) if not prompt]
        for table in tables:
            table[empty] = 0
    return tables
