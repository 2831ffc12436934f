"""The one door to diffusers: loading text-to-image models and drawing with them."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.artifacts import LORA_FILE
from pipeline.errors import InputError, first_line

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
    from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """Everything but prompt, seed and weights that shapes an image."""

    scheduler: str  # "ddim" or "dpm++"
    steps: int
    guidance: float  # classifier-free guidance scale
    size: int  # pixels, both sides
    negative_prompt: str = ""

    def describe(self) -> dict[str, object]:
        """The settings as plain values, for ids and records."""
        return asdict(self)


def model_revision(path: str, revision: str | None) -> str:
    """What identifies the weights: the hub revision, or a hash over a local folder's files.

    Raises InputError for a hub id without a revision, since its weights could change unseen.
    """
    folder = Path(path)
    if not folder.is_dir():
        if revision is None:
            raise InputError(
                f"base_model.path {path!r} is no folder here; a hub id needs base_model.revision"
            )
        return revision
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


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


def _load_pipeline(
    path: str, revision: str | None, dtype: "torch.dtype", **parts: None
) -> "DiffusionPipeline":
    from diffusers import AutoPipelineForText2Image
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with _readable(path, "a text-to-image pipeline"):
        return AutoPipelineForText2Image.from_pretrained(
            path, revision=revision, safety_checker=None, requires_safety_checker=False,
            use_safetensors=True, dtype=dtype, **parts,
        )  # fmt: skip


def load_pipeline(path: str, revision: str | None) -> "DiffusionPipeline":
    """A text-to-image pipeline on the best device, without progress bar or safety checker.

    The checker is left out because it would blank the very images that the preference data needs;
    nothing this project ships switches it off in the user's own pipeline.
    """
    import torch

    gpu = torch.cuda.is_available()
    pipe = _load_pipeline(path, revision, torch.float16 if gpu else torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if gpu else "cpu")


def load_unet(path: str, revision: str | None) -> "UNet2DConditionModel":
    """The model's UNet in float32, frozen."""
    import torch
    from diffusers import UNet2DConditionModel

    with _readable(path, "the UNet"):
        unet = UNet2DConditionModel.from_pretrained(
            path, subfolder="unet", revision=revision, use_safetensors=True
        )
    return unet.requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def load_alphas_cumprod(path: str, revision: str | None):
    """Cumulative signal levels of the training noise schedule, (timesteps,), and its target.

    The target is "epsilon" or "v_prediction".
    """
    from diffusers import DDPMScheduler

    with _readable(path, "the scheduler"):
        scheduler = DDPMScheduler.from_pretrained(path, subfolder="scheduler", revision=revision)
    return scheduler.alphas_cumprod, scheduler.config.prediction_type


def load_vae(path: str, revision: str | None) -> "AutoencoderKL":
    """The model's VAE in float32, frozen."""
    from diffusers import AutoencoderKL

    with _readable(path, "the VAE"):
        vae = AutoencoderKL.from_pretrained(
            path, subfolder="vae", revision=revision, use_safetensors=True
        )
    return vae.requires_grad_(False)


def encode_prompts(
    path: str, revision: str | None, prompts: Sequence[str], batch: int
) -> tuple["Tensor", "Tensor"]:
    """Text as the UNet sees it, float32 on the CPU.

    Returns:
        Embeddings (prompts, tokens, width), and pooled ones (prompts, pooled width), whose width is
        0 for models that have none. SDXL's two encoders are joined as its pipeline joins them.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = _load_pipeline(path, revision, torch.float32, unet=None, vae=None).to(device)
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
    return torch.cat(embeds), torch.cat(pooled)


def _set_scheduler(pipe: "DiffusionPipeline", name: str) -> None:
    """Replace the pipeline's scheduler by the named one, keeping its noise schedule."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    kinds = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}
    if name not in kinds:
        raise InputError(f"unknown scheduler {name!r}; known: {', '.join(kinds)}")
    pipe.scheduler = kinds[name].from_config(pipe.scheduler.config)


def apply_lora(pipe: "DiffusionPipeline", folder: Path) -> None:
    """Put a LoRA folder on the pipeline, through diffusers' own loader.

    Raises InputError when the folder holds no readable LoRA file.
    """
    from safetensors import SafetensorError

    path = Path(folder) / LORA_FILE
    if not path.is_file():
        raise InputError(f"no LoRA file {path}; run `dvc repro` to train and merge it")
    try:
        pipe.load_lora_weights(str(folder), weight_name=LORA_FILE, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} is damaged or of another model ({first_line(error)}); delete it and run "
            "`dvc repro`"
        ) from error


def load_variant(
    model: str, revision: str | None, lora: Path | None
) -> tuple["DiffusionPipeline", str]:  # fmt: skip
    """The base model, with a LoRA folder on it unless ``lora`` is None, and its identity."""
    pipe = load_pipeline(model, revision)
    identity = model_revision(model, revision)
    if lora is not None:
        apply_lora(pipe, lora)
        identity = f"{identity}+{model_revision(str(lora), None)}"
    return pipe, identity


def draw_images(
    pipe: "DiffusionPipeline", prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler
) -> list[Image.Image]:
    """Draw one image per prompt in one batch; image i's noise comes from seeds[i] alone."""
    import torch

    _set_scheduler(pipe, sampler.scheduler)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return pipe(
        prompt=list(prompts), negative_prompt=[sampler.negative_prompt] * len(prompts),
        num_inference_steps=sampler.steps, guidance_scale=sampler.guidance, height=sampler.size,
        width=sampler.size, generator=generators, output_type="pil",
    ).images  # fmt: skip
