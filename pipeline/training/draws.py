"""Everything random about a batch of preference rows: fresh at every visit, or from a fixed set."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.latents import LatentPairs
from pipeline.seeds import seed_for


class Draws(NamedTuple):
    """The random choices of a batch of rows; both sides of a pair share them."""

    posterior: Tensor  # (batch, c, h, w), of the VAE's posterior
    noise: Tensor  # (batch, c, h, w)
    timesteps: Tensor  # (batch,) int64
    dropped: Tensor  # (batch,) bool: conditioned on the empty prompt
    views: Tensor  # (batch,) int64: which cached view is shown

    def take(self, rows: Tensor) -> "Draws":
        """Those of some rows of the batch, by position."""
        return Draws(*(value[rows] for value in self))


class RandomDraws:
    """Makes draws for rows of cached pairs.

    Row r is of pair r modulo the number of pairs; ``timesteps`` is the length of the noise
    schedule. A row has ``fixed`` draws of its own, or None.
    """

    def __init__(
        self, latents: LatentPairs, timesteps: int, prompt_dropout: float, fixed: int | None,
        base_seed: int,
    ) -> None:  # fmt: skip
        self._latents, self._timesteps, self._dropout = latents, timesteps, prompt_dropout
        self._count, self._base_seed = fixed, base_seed

    def fresh(
        self, count: int, generator: torch.Generator, part: tuple[float, float] = (0.0, 1.0)
    ) -> Draws:  # fmt: skip
        """Draws of a generator for ``count`` rows, timesteps from a part of the schedule."""
        shape = (count, *self._latents.latent_shape)
        low, high = (int(bound * self._timesteps) for bound in part)
        return Draws(
            torch.randn(shape, generator=generator), torch.randn(shape, generator=generator),
            torch.randint(low, high, (count,), generator=generator),
            torch.rand(count, generator=generator) < self._dropout,
            torch.randint(self._latents.views, (count,), generator=generator),
        )  # fmt: skip

    def fixed(self, rows: Tensor, which: Tensor) -> Draws:
        """The fixed draws ``which`` of rows; the k-th of n has a timestep in the k-th n-th.

        They follow from a pair's id: other pairs, such as held-out ones, have other noise.
        """
        parts = []
        for row, k in zip(rows.tolist(), which.tolist(), strict=True):
            caption, pair = divmod(row, len(self._latents))
            identity = self._latents.pair_ids[pair], caption, k
            generator = torch.Generator().manual_seed(seed_for(self._base_seed, "draw", *identity))
            parts.append(self.fresh(1, generator, (k / self._count, (k + 1) / self._count)))
        return Draws(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def every_fixed(self, rows: int) -> Tensor:
        """All (row, fixed draw) there are, (rows x draws, 2)."""
        return torch.cartesian_prod(torch.arange(rows), torch.arange(self._count))
