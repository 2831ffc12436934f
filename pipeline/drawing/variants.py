"""The models that are measured: the base model, with a LoRA on it, or with somebody's weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.drawing.pipelines import apply_lora, load_checkpoint, load_pipeline
from pipeline.drawing.safe_latents import SafeLatents
from pipeline.drawing.sampler import FULL, Sampler
from pipeline.sources import ModelSource, hash_weights, weights_id

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load_variant(
    source: ModelSource, kind: str, path: Path | None = None, *, hub: str | None = None,
    revision: str | None = None, scale: float = 1.0, precision: str = FULL,
) -> tuple["DiffusionPipeline", str]:  # fmt: skip
    """A variant's pipeline, and what identifies its weights.

    Args:
        source: the base model.
        kind: "base", "lora" or "checkpoint".
        path: of a LoRA, a folder with diffusers' file or a file in any layout that diffusers
            reads; of a checkpoint, a diffusers folder, a folder with another UNet for the base
            model, as aligned models are published, or one .safetensors file.
        hub: id of a checkpoint that is not here, with its ``revision``.
        scale: of the LoRA's delta.
        precision: as of a ``Sampler``.

    Raises:
        InputError: the weights cannot be loaded, or are of another model.
    """
    if kind == "checkpoint":
        return _load_checkpoint(source, hub or str(path), revision, precision)
    pipe, identity = load_pipeline(source, precision=precision), source.identity
    if kind == "lora":
        apply_lora(pipe, path, scale)
        identity = f"{identity}+{hash_weights(path)}"
        if scale != 1:
            identity = f"{identity}@{scale:g}"
    return pipe, identity


def _load_checkpoint(
    source: ModelSource, path: str, revision: str | None, precision: str
) -> tuple["DiffusionPipeline", str]:
    folder = Path(path)
    if folder.suffix == ".safetensors" or (folder / "config.json").is_file():
        pipe = load_checkpoint(source, folder, precision)
        return pipe, f"{source.identity}+{hash_weights(folder)}"
    weights_id(path, revision, "a variant's path", "a revision")  # names the right keys
    other = replace(source, path=path, revision=revision)
    return load_pipeline(other, precision=precision), other.identity


def variant_sampler(
    sampler: Sampler, negative_prompt: str, safe_latents: Mapping[str, object] | None
) -> Sampler:
    """The settings that all variants share, with what a variant adds."""
    steered = SafeLatents(**safe_latents) if safe_latents else None
    return replace(sampler, negative_prompt=negative_prompt, safe_latents=steered)
