"""What an entry of ``variants`` in params.yaml may say."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.section import NotNegative, Section, Share
from pipeline.taxonomy import Slug


class SafeLatentsParams(Section):
    """Guidance away from a concept; ``pipeline.drawing.safe_latents`` has the paper's values."""

    concept: Annotated[str, Field(min_length=1)]
    scale: NotNegative
    threshold: NotNegative
    warmup: Share
    momentum: Share
    beta: Annotated[float, Field(ge=0, lt=1)]


class Variant(Section):
    """A model to evaluate: base_model as it is, or with a LoRA, a user adapter or other weights.

    A LoRA is a folder with diffusers' file, or a file in any layout that diffusers reads. A
    checkpoint is a diffusers folder, a folder with another UNet, a .safetensors file, or a hub id.
    """

    kind: Literal["base", "lora", "psa", "checkpoint"]
    path: Path  # of the weights, which DVC watches; for base and hub any file that goes with them
    hub: str | None = None  # id of a checkpoint that is not here
    revision: str | None = None
    scale: NotNegative = 1.0  # of what the LoRA or the user adapter adds
    bans: list[Slug] | None = None  # of the adapter's user, beside the floor; null: everything
    negative_prompt: str = ""
    safe_latents: SafeLatentsParams | None = None
    rewrite: bool = False  # it draws what the LLM makes of a prompt (pipeline.prompts.rewriting)

    @model_validator(mode="after")
    def _of_its_kind(self) -> "Variant":
        if self.kind not in ("lora", "psa") and self.scale != 1:
            raise ValueError(f"scale is of a LoRA or an adapter; kind: {self.kind} has none")
        if self.kind != "psa" and self.bans is not None:
            raise ValueError(f"bans are of a user; kind: {self.kind} has none")
        if self.kind != "checkpoint" and (self.hub or self.revision):
            raise ValueError("hub and revision are of kind: checkpoint")
        if bool(self.hub) != bool(self.revision):
            raise ValueError("a hub id needs its revision, and a revision its hub id")
        return self

    @property
    def is_plain_base(self) -> bool:
        """Whether it is the base model as it is."""
        return self == Variant(kind="base", path=self.path)
