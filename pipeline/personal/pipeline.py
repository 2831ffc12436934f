"""Draws for people: a plain diffusers pipeline with a user adapter on its UNet.

    pipe = load_pipeline(ModelSource("assets/testbed/sd"))
    personal = PersonalSafetyPipeline.load(pipe, "models/psa/psa_adapter.safetensors", revision)
    personal("a red star at dusk", profile=UserProfile(age=15)).images
    personal(prompts, bans=[{"violence"}, {"hate", "sexual"}]).images  # several users in one batch
    personal("a red star at dusk", level="L3", strength=1.2).images

Of whom nothing is told, nothing is shown: without a profile everything is banned.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.drawing.images import Draw
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.personal.files import LoadedAdapter, load_adapter
from pipeline.personal.profiles import UserProfile
from pipeline.personal.space import Boundary
from pipeline.personal.user_attention import UserBatch
from pipeline.policy import hard_block

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class PersonalSafetyPipeline:
    """A pipeline that asks for whom it draws; its UNet carries the adapter until ``detach``."""

    def __init__(self, pipe: "DiffusionPipeline", loaded: LoadedAdapter) -> None:
        self.pipe, self.space, self._adapter = pipe, loaded.space, loaded.adapter
        self.attach()

    @classmethod
    def load(
        cls, pipe: "DiffusionPipeline", path: Path, base_revision: str
    ) -> "PersonalSafetyPipeline":
        """Put an adapter's file on a pipeline.

        ``base_revision`` is the base model's ``ModelSource.identity``; InputError as
        ``pipeline.personal.files.load_adapter``.
        """
        return cls(pipe, load_adapter(path, pipe.unet, base_revision))

    @property
    def by_bans(self) -> bool:
        """Whether pictures depend on nothing about a person but what is banned."""
        return self._adapter.settings.form == "gated"

    def attach(self) -> None:
        """Put the adapter on the pipeline's UNet, where it is from the start."""
        self._adapter.attach(self.pipe.unet)

    def detach(self) -> "DiffusionPipeline":
        """The plain pipeline again, bit for bit."""
        self._adapter.detach()
        return self.pipe

    def show(self, boundaries: Sequence[Boundary], strength: float = 1.0) -> None:
        """Draw for these people from now on, row by row; ``strength`` scales what is added."""
        if not 0 <= strength < float("inf"):
            raise InputError(f"strength must be a number from 0 up, got {strength}")
        vectors = torch.from_numpy(np.stack([b.vector for b in boundaries]))
        bans = torch.from_numpy(self.space.one_hot(boundaries))
        unet = self.pipe.unet
        self._adapter.scale = strength
        self._adapter.show(UserBatch.of(vectors, bans).to(unet.device, unet.dtype), guided=True)

    def drawing_for(self, boundary: Boundary, strength: float = 1.0) -> Draw:
        """What draws for one person: (prompts, seeds, sampler) to images."""

        def draw(prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler):
            return draw_images(
                self.pipe, prompts, seeds, sampler,
                lambda count: self.show([boundary] * count, strength),
            )  # fmt: skip

        return draw

    def __call__(
        self, prompt: str | Sequence[str], *,
        profile: UserProfile | Sequence[UserProfile | None] | None = None,
        bans: Collection[str] | Sequence[Collection[str] | None] | None = None,
        level: str | Sequence[str | None] | None = None, strength: float = 1.0,
        num_images_per_prompt: int = 1, **kwargs: object,
    ):  # fmt: skip
        """The pipeline's own call, for one person or one for each prompt.

        Args:
            profile, bans, level: see ``resolve``; a list has one for each prompt.
            strength: of the adapter; 1 is as it was trained.
            kwargs: the pipeline's.

        Raises InputError for a hard-blocked prompt, or lists of another length.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        for number, text in enumerate(prompts, 1):
            if reason := hard_block(text):
                raise InputError(f"prompt number {number} is hard-blocked ({reason})")
        people = [
            self.space.resolve(*told)
            for told in zip(
                _for_each(profile, len(prompts), "profile", isinstance(profile, list | tuple)),
                _for_each(bans, len(prompts), "bans", _is_list_of_bans(bans)),
                _for_each(level, len(prompts), "level", isinstance(level, list | tuple)),
                strict=True,
            )
        ]
        self.show([p for p in people for _ in range(num_images_per_prompt)], strength)
        return self.pipe(prompt=prompts, num_images_per_prompt=num_images_per_prompt, **kwargs)


def _is_list_of_bans(bans: object) -> bool:
    """Whether it is one collection of names for each prompt, and not one for all of them."""
    return isinstance(bans, list | tuple) and not all(isinstance(name, str) for name in bans)


def _for_each(value: object, count: int, name: str, several: bool) -> list:
    if not several:
        return [value] * count
    if len(value) != count:
        raise InputError(f"{name} has {len(value)} entries for {count} prompts; give one for each, "
                         "or one for all")  # fmt: skip
    return list(value)
