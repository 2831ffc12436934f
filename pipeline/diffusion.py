"""The one door to diffusers: loading text-to-image models and drawing with them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.artifacts import LORA_FILE
from pipeline.errors import InputError, first_line
from pipeline.safe_latents import safe_latents
from pipeline.sampler import Sampler
from pipeline.sources import ModelSource

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
    from torch import Tensor

ADAPTER = "safety"  # the LoRA's name on a pipeline


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
        raise InputError(f"the scheduler's prediction_type {self.prediction_type!r} is not known")


@contextmanager
def _readable(path: str, part: str) -> Iterator[None]:
    """Turn the many errors of a missing or damaged checkpoint into one the user can act on."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"cannot load {part} from {path}: {first_line(error)}. For the bundled testbed run "
            "`git checkout assets/testbed`; otherwise check base_model in params.yaml"
        ) from error


# the checker would blank the very images that preference data and measurements need
UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}


def _load_pipeline(
    source: ModelSource, dtype: "torch.dtype", **parts: object
) -> "DiffusionPipeline":
    from diffusers import AutoPipelineForText2Image
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with _readable(source.path, "a text-to-image pipeline"):
        return AutoPipelineForText2Image.from_pretrained(
            source.path, revision=source.revision, use_safetensors=True, dtype=dtype, **parts
        )


def load_pipeline(source: ModelSource, checked: bool = False) -> "DiffusionPipeline":
    """A text-to-image pipeline on the best device, without progress bar.

    ``checked`` keeps the model's own safety checker, if it has one, as everything does that draws
    what a user asks for; preference data and measurements are drawn without.
    """
    import torch

    gpu = torch.cuda.is_available()
    dtype = torch.float16 if gpu else torch.float32
    other = {"vae": load_vae(source).to(dtype=dtype)} if source.vae else {}
    pipe = _load_pipeline(source, dtype, **other, **({} if checked else UNCHECKED))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if gpu else "cpu")


def load_checkpoint(source: ModelSource, path: Path) -> "DiffusionPipeline":
    """``load_pipeline``'s with other weights: a folder with a UNet, or a .safetensors file.

    A file holds a whole model in the original layout, and the base model says of which shape.
    Raises InputError when it cannot be loaded, or its UNet is of another shape.
    """
    from diffusers import UNet2DConditionModel

    pipe = load_pipeline(source)
    with _readable(str(path), "the weights"):
        if path.is_dir():
            unet = UNet2DConditionModel.from_pretrained(path, use_safetensors=True)
            for key in ("in_channels", "cross_attention_dim"):
                if unet.config[key] != pipe.unet.config[key]:
                    raise ValueError(f"its UNet has {key} {unet.config[key]}, the base model's "
                                     f"{pipe.unet.config[key]}")  # fmt: skip
            pipe.unet = unet.to(pipe.device, pipe.unet.dtype)
            return pipe
        whole = type(pipe).from_single_file(
            str(path), config=source.path, revision=source.revision, local_files_only=True,
            **({"vae": pipe.vae} if source.vae else {}), **UNCHECKED,
        )  # fmt: skip
    whole.set_progress_bar_config(disable=True)
    return whole.to(pipe.device, pipe.unet.dtype)


def load_published(source: ModelSource) -> "DiffusionPipeline":
    """The whole model as it was published, safety checker included, in float32 on the CPU."""
    import torch

    return _load_pipeline(
        source, torch.float32, **({"vae": load_vae(source)} if source.vae else {})
    )


def to_kohya(tensors: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """A LoRA's tensors under kohya's keys, with alphas that are the ranks."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    return convert_state_dict_to_kohya(dict(tensors)) if tensors else {}


def load_unet(source: ModelSource) -> "UNet2DConditionModel":
    """The model's UNet in float32, frozen."""
    import torch
    from diffusers import UNet2DConditionModel

    with _readable(source.path, "the UNet"):
        unet = UNet2DConditionModel.from_pretrained(
            source.path, subfolder="unet", revision=source.revision, use_safetensors=True
        )
    return unet.requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def load_noise_schedule(source: ModelSource) -> NoiseSchedule:
    """The noise that the model was trained with."""
    from diffusers import DDPMScheduler

    with _readable(source.path, "the scheduler"):
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
    with _readable(where, "the VAE"):
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
    pipe = _load_pipeline(source, torch.float32, unet=None, vae=None, **UNCHECKED).to(device)
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


def _set_scheduler(pipe: "DiffusionPipeline", name: str) -> None:
    """Replace the pipeline's scheduler by the named one, keeping its noise schedule."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    kinds = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}
    if name not in kinds:
        raise InputError(f"unknown scheduler {name!r}; known: {', '.join(kinds)}")
    pipe.scheduler = kinds[name].from_config(pipe.scheduler.config)


def lora_file(lora: Path) -> Path:
    """The LoRA file in a folder, or the file itself; InputError when there is none."""
    path = lora / LORA_FILE if Path(lora).is_dir() else Path(lora)
    if not path.is_file():
        raise InputError(f"no LoRA file {path}; run `dvc repro` to train and merge it")
    return path


def apply_lora(pipe: "DiffusionPipeline", lora: Path, scale: float = 1.0) -> None:
    """Put a LoRA on the pipeline through diffusers' own loader, its delta counted ``scale`` times.

    ``lora`` is a folder with diffusers' file, or a file in any layout that diffusers reads
    (kohya's too). In float32 the delta is added to the weights, which is faster; in half precision
    that would round small deltas away, so it stays beside them.

    Raises InputError when there is no readable LoRA for this model.
    """
    import torch
    from safetensors import SafetensorError

    path = lora_file(lora)
    try:
        pipe.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name=ADAPTER, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} is damaged or of another model ({first_line(error)}); if it was made here, "
            "delete it and run `dvc repro`"
        ) from error
    if ADAPTER not in pipe.get_list_adapters().get("unet", ()):  # diffusers would only warn
        raise InputError(f"{path} holds nothing for the UNet of this model; it is of another one")
    if pipe.unet.dtype == torch.float32:
        pipe.fuse_lora(lora_scale=scale)
        pipe.unload_lora_weights()
    else:
        pipe.set_adapters(ADAPTER, scale)


def draw_images(
    pipe: "DiffusionPipeline", prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler
) -> list[Image.Image]:
    """Draw one image per prompt in one batch; image i's noise comes from seeds[i] alone.

    Without a negative prompt the model's own way of guidance without one is used. Raises InputError
    for a picture that is not finite, which would be drawn black and could be judged safe.
    """
    import numpy as np
    import torch

    _set_scheduler(pipe, sampler.scheduler)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    negative = [sampler.negative_prompt] * len(prompts) if sampler.negative_prompt else None
    steered = (safe_latents(pipe, sampler.safe_latents, sampler.steps) if sampler.safe_latents
               else nullcontext())  # fmt: skip
    with steered:
        pictures = pipe(
            prompt=list(prompts), negative_prompt=negative, num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance, width=sampler.size,
            height=sampler.height or sampler.size, generator=generators, output_type="np",
        ).images  # fmt: skip
    for seed, picture in zip(seeds, pictures, strict=True):
        if not np.isfinite(picture).all():
            raise InputError(f"the model draws NaN from seed {seed}: its weights, or a LoRA's, are "
                             "damaged or overflow in half precision")  # fmt: skip
    return [Image.fromarray((picture * 255).round().astype("uint8")) for picture in pictures]
