"""Whole text-to-image pipelines: loading them, putting a LoRA on them, and drawing."""

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from PIL import Image

from pipeline.artifacts import LORA_FILE
from pipeline.diffusion import UNCHECKED, load_vae, open_pipeline, readable
from pipeline.drawing.safe_latents import safe_latents
from pipeline.drawing.sampler import FULL, Sampler
from pipeline.errors import InputError, first_line
from pipeline.memory import Fitting
from pipeline.sources import ModelSource

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin
    from torch import Tensor

ADAPTER = "safety"  # the LoRA's name on a pipeline
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# name -> diffusers' class, and what of the model's own configuration is changed
SCHEDULERS = {
    "own": (None, {}),  # the model's, as models must have that are trained by flow matching
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    # of models distilled to few steps, with what their authors set
    "turbo": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "lightning": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
MEMORY = {  # less of it for more time
    "attention_slicing": lambda pipe: pipe.enable_attention_slicing(),
    "vae_slicing": lambda pipe: pipe.vae.enable_slicing(),
    "vae_tiling": lambda pipe: pipe.vae.enable_tiling(),
}


@dataclass
class _State:
    """What is known of a pipeline that draws."""

    own_scheduler: "SchedulerMixin"
    prepared: tuple = ()  # scheduler, memory and compile that it has been set to
    fitting: Fitting = field(default_factory=lambda: Fitting("draw images", "images.batch"))


_states: MutableMapping["DiffusionPipeline", _State] = WeakKeyDictionary()


def load_pipeline(
    source: ModelSource, checked: bool = False, precision: str = FULL
) -> "DiffusionPipeline":
    """A text-to-image pipeline on the best device, without progress bar.

    ``checked`` keeps the model's own safety checker, if it has one, as everything does that draws
    what a user asks for; preference data and measurements are drawn without. ``precision`` is one
    of ``Sampler``'s. Raises InputError when the model cannot be loaded, or for fp16 on a CPU.
    """
    import torch

    gpu = torch.cuda.is_available()
    if precision == "fp16" and not gpu:
        raise InputError("images.precision fp16 needs a GPU; use fp32 or bf16")
    dtype = getattr(torch, DTYPES[precision])
    other = {"vae": load_vae(source).to(dtype=dtype)} if source.vae else {}
    pipe = open_pipeline(source, dtype, **other, **({} if checked else UNCHECKED))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if gpu else "cpu")


def load_checkpoint(source: ModelSource, path: Path, precision: str = FULL) -> "DiffusionPipeline":
    """``load_pipeline``'s with other weights: a folder with a UNet, or a .safetensors file.

    A file holds a whole model in the original layout, and the base model says of which shape.
    Raises InputError when it cannot be loaded, or its UNet is of another shape.
    """
    from diffusers import UNet2DConditionModel

    pipe = load_pipeline(source, precision=precision)
    with readable(str(path), "the weights"):
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

    return open_pipeline(source, torch.float32, **({"vae": load_vae(source)} if source.vae else {}))


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


def to_kohya(tensors: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """A LoRA's tensors under kohya's keys, with alphas that are the ranks."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    return convert_state_dict_to_kohya(dict(tensors)) if tensors else {}


def draw_images(
    pipe: "DiffusionPipeline", prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler,
    condition: Callable[[int], None] | None = None,
) -> list[Image.Image]:  # fmt: skip
    """Draw one image per prompt in one batch; image i's noise comes from seeds[i] alone.

    Without a negative prompt the model's own way of guidance without one is used. Where memory
    does not suffice for a batch, it and all after it are drawn in halves, which is said; so what
    hangs on the UNet and depends on the batch is set by ``condition``, told how many images come.

    Raises InputError for a picture that is not finite, which would be drawn black and could be
    judged safe, and when memory does not suffice for a single image.
    """

    def draw(some: slice) -> list[Image.Image]:
        if condition:
            condition(len(prompts[some]))
        return _draw_batch(pipe, prompts[some], seeds[some], sampler)

    remedy = f"lower images.size, or set images.memory to [{', '.join(MEMORY)}]"
    parts = _prepare(pipe, sampler).fitting.run(len(prompts), draw, remedy)
    return [image for part in parts for image in part]


def _prepare(pipe: "DiffusionPipeline", sampler: Sampler) -> _State:
    """Set a pipeline up as a sampler asks, keeping the model's noise schedule."""
    import diffusers
    import torch

    if sampler.scheduler not in SCHEDULERS:
        raise InputError(f"unknown scheduler {sampler.scheduler!r}; known: {', '.join(SCHEDULERS)}")
    state = _states.setdefault(pipe, _State(pipe.scheduler))
    asked = sampler.scheduler, sampler.memory, sampler.compile
    if state.prepared != asked:
        kind, changes = SCHEDULERS[sampler.scheduler]
        scheduler = getattr(diffusers, kind) if kind else type(state.own_scheduler)
        pipe.scheduler = scheduler.from_config(state.own_scheduler.config, **changes)
        for name in sampler.memory:
            MEMORY[name](pipe)
        if sampler.compile:
            # or a user adapter's hooks, put on later, would never be called
            torch._dynamo.config.skip_nnmodule_hook_guards = False
            (getattr(pipe, "unet", None) or pipe.transformer).compile()
        state.prepared = asked
    return state


def _draw_batch(
    pipe: "DiffusionPipeline", prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler
) -> list[Image.Image]:
    import numpy as np
    import torch

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
