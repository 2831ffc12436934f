"""Cached pairs as a UNet is given them: noised, with their prompts and views."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.diffusion import NoiseSchedule
from pipeline.latents import LatentPairs
from pipeline.training.draws import Draws

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class NoisedPairs:
    """Makes the arguments of a UNet, and what it is to predict, of rows of cached pairs."""

    latents: LatentPairs
    schedule: NoiseSchedule
    device: torch.device

    def both(self, pairs: Tensor, prompts: Tensor, draws: Draws) -> tuple[dict, Tensor]:
        """Both sides of pairs under one prompt each: (2 batch, ...), chosen rows first.

        Args:
            pairs: (batch,) positions.
            prompts: (batch,) positions of the prompts; dropped rows get the empty one instead.
            draws: what both sides of a pair share.
        """
        prompts = prompts.clone()
        prompts[draws.dropped] = 0  # row 0 is the empty prompt
        clean = torch.cat([self._clean(side, pairs, draws) for side in SIDES])
        return self._noised(clean, draws, prompts, pairs)

    def chosen(self, pairs: Tensor, prompts: Tensor, draws: Draws) -> tuple[dict, Tensor]:
        """The chosen side of pairs under one prompt each, (batch, ...); no prompt is dropped."""
        return self._noised(self._clean("chosen", pairs, draws), draws, prompts, pairs)

    def _clean(self, side: str, pairs: Tensor, draws: Draws) -> Tensor:
        """A sample of the posterior of one side's images, (batch, c, h, w)."""
        mean, std = (
            getattr(self.latents, f"{side}_{name}")[pairs, draws.views] for name in ("mean", "std")
        )
        return mean + std * draws.posterior

    def _noised(
        self, clean: Tensor, draws: Draws, prompts: Tensor, pairs: Tensor
    ) -> tuple[dict[str, object], Tensor]:  # fmt: skip
        """Of clean latents of one side, or of both after each other."""
        sides = len(clean) // len(prompts)
        timesteps = draws.timesteps.repeat(sides)
        noise = draws.noise.repeat(sides, 1, 1, 1)
        noisy, target = self.schedule.noised(clean, noise, timesteps)
        corner = self.latents.corner[pairs, draws.views].repeat(sides, 1)
        given = self.latents.conditions(prompts.repeat(sides), corner, self.device)
        inputs = {"sample": noisy.to(self.device), "timestep": timesteps.to(self.device)} | given
        return inputs, target.to(self.device)
