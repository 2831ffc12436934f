"""Streams of layer inputs, boiled down: which expert reacts most, and the mean of h h^T."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.lora import Lora

INPUT_ROWS = 4096  # inputs that are looked at together, so that memory stays bounded


@dataclass(frozen=True)
class Winners:
    """Which expert reacts most, per layer and output row (METHOD §1.3).

    For layer inputs h and experts i with deltas dW_i, ``counts[layer][i, j]`` is the number of
    inputs for which |(dW_i h)_j| is the largest over the experts, ``sums[layer][i, j]`` the sum
    of |(dW_i h)_j|. Experts are in the order of ``experts``.
    """

    experts: Sequence[str]
    counts: Mapping[str, Tensor]  # layer -> (experts, d_out)
    sums: Mapping[str, Tensor]

    def rows(self, layer: str, activation: str = "count") -> Tensor:
        """The index of the expert that wins each output row of a layer, (d_out,) int64.

        By ``activation``: the "count" of inputs won, ties going to the larger mean |activation|,
        or the mean "magnitude" itself; then to the lower index. Raises InputError for others.
        """
        won, sums = self.counts[layer], self.sums[layer]
        if activation == "magnitude":
            return sums.argmax(0)
        if activation != "count":
            raise InputError(f"unknown activation {activation!r}; known: count, magnitude")
        tied = won == won.max(0).values
        return sums.masked_fill(~tied, -1).argmax(0)

    def written(self, layer: str) -> Tensor:
        """Which output rows of a layer some expert writes to, (d_out,) bool."""
        return self.sums[layer].max(0).values > 0


class WinnerCounts:
    """Streams layer inputs into the tables of ``Winners``, which alone are stored."""

    def __init__(self, experts: Mapping[str, Lora]) -> None:
        self._experts = experts
        self._moved: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._counts: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}

    def add(self, layer: str, inputs: Tensor) -> None:
        """Count one batch of a layer's inputs, (..., d_in)."""
        for h in inputs.reshape(-1, inputs.shape[-1]).float().split(INPUT_ROWS):
            activations = torch.stack([
                (h @ down.T @ up.T).abs() for down, up in self._factors(layer, h.device)
            ])  # fmt: skip
            winners = activations.argmax(0)  # (inputs, d_out); the lowest index wins exact ties
            counts = torch.stack([(winners == i).sum(0) for i in range(len(activations))])
            self._counts[layer] = self._counts.get(layer, 0) + counts
            sums = activations.sum(1, dtype=torch.float64)
            self._sums[layer] = self._sums.get(layer, 0) + sums

    def _factors(self, layer: str, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """The experts' down and up of a layer, moved to the inputs' device once."""
        if layer not in self._moved:
            self._moved[layer] = [(e[layer].down.to(device), e[layer].up.to(device))
                                  for e in self._experts.values()]  # fmt: skip
        return self._moved[layer]

    @property
    def winners(self) -> Winners:
        """The tables so far."""
        counts, sums = ({layer: table.cpu() for layer, table in tables.items()}
                        for tables in (self._counts, self._sums))  # fmt: skip
        return Winners(list(self._experts), counts, sums)


@dataclass(frozen=True)
class Moments:
    """The mean h h^T of layers' inputs; layers that see the same input share one matrix.

    Attention's to_q, to_k and to_v do, and all cross-attention's to_k and to_v, of the prompt.
    """

    matrices: Mapping[str, Tensor]  # first layer that sees an input -> (d_in, d_in)
    leaders: Mapping[str, str]  # layer -> that first layer

    def __getitem__(self, layer: str) -> Tensor:
        return self.matrices[self.leaders[layer]]


class InputMoments:
    """Streams layer inputs h; ``means[layer]`` is the mean of h h^T, (d_in, d_in) float64."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._inputs: dict[str, int] = {}

    def add(self, layer: str, inputs: Tensor) -> None:
        """Add one batch of a layer's inputs, (..., d_in)."""
        for h in inputs.reshape(-1, inputs.shape[-1]).split(INPUT_ROWS):
            h = h.double()
            self._sums[layer] = self._sums.get(layer, 0) + h.T @ h
            self._inputs[layer] = self._inputs.get(layer, 0) + len(h)

    @property
    def means(self) -> dict[str, Tensor]:
        """The mean outer product of every layer's inputs, on the CPU."""
        return {layer: (total / self._inputs[layer]).cpu() for layer, total in self._sums.items()}
