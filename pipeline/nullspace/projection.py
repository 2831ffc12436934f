"""Keeps a LoRA off the inputs of benign prompts: a soft projection onto their null space [ours].

A layer's delta dW answers to any input h. With C the mean h h^T over benign inputs, the delta

    dW* = dW s (C + s I)^-1,   s = damping * trace(C) / d_in

minimises ||X - dW||^2 + (1 / s) E||X h||^2 over X: next to nothing is left of it in directions that
benign prompts use, nearly all in the others. It is RegMean's closed form with METHOD §1.3's benign
term and no other data; null-space constrained editing (AlphaEdit, arXiv 2410.02355) projects hard.
Because it acts on the input side, it holds for any choice or sum of output rows: a LoRA merged from
projected experts is itself projected.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.lora import Lora, LoraLayer, map_inputs
from pipeline.nullspace.moments import Moments


def null_projection(moment: Tensor, damping: float) -> Tensor:
    """The matrix s (C + s I)^-1 of a layer's benign moment C, (d_in, d_in) float32, symmetric.

    Args:
        moment: C, the mean h h^T of benign inputs, symmetric and positive semi-definite.
        damping: positive; a direction with ``damping`` times the mean energy is halved.

    Raises:
        ValueError: damping is not positive.
    """
    return _solve(moment, damping, torch.eye(len(moment)))


def null_projections(moments: Moments, damping: float) -> dict[str, Tensor]:
    """``null_projection`` of every layer; layers with one input share one matrix."""
    shared = {
        leader: null_projection(moments.matrices[leader], damping)
        for leader in sorted(set(moments.leaders.values()))
    }
    return {layer: shared[leader] for layer, leader in moments.leaders.items()}


def project_inputs(lora: Lora, projections: Mapping[str, Tensor]) -> Lora:
    """The LoRA whose layers see their inputs through the projections."""
    return {
        name: LoraLayer(map_inputs(layer.down, projections[name]), layer.up)
        for name, layer in lora.items()
    }


def project_experts(
    experts: Mapping[str, Lora], moments: Moments, damping: float
) -> dict[str, Lora]:
    """The LoRAs seen through ``null_projection``, without forming those matrices.

    One factorisation per input serves all layers that see it, of all experts.
    """
    projected: dict[str, Lora] = {name: {} for name in experts}
    shared: dict[str, list[tuple[str, str]]] = {}
    for name, lora in experts.items():
        for layer in lora:
            shared.setdefault(moments.leaders[layer], []).append((name, layer))
    for leader, members in shared.items():
        downs = [experts[name][layer].down for name, layer in members]
        solved = _solve(moments.matrices[leader], damping, torch.cat(downs).T).T
        for (name, layer), down in zip(members, solved.split([len(d) for d in downs]), strict=True):
            projected[name][layer] = LoraLayer(down.contiguous(), experts[name][layer].up)
    return {name: {layer: projected[name][layer] for layer in lora}
            for name, lora in experts.items()}  # fmt: skip


def _solve(moment: Tensor, damping: float, right: Tensor) -> Tensor:
    if damping <= 0:
        raise ValueError(f"damping must be positive, got {damping}")
    size = len(moment)
    s = damping * moment.double().trace() / size
    system = moment.double() / s + torch.eye(size, dtype=torch.float64)
    return torch.cholesky_solve(right.double(), torch.linalg.cholesky(system)).float()
