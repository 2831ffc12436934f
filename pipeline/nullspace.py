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


def null_projection(moment: Tensor, damping: float) -> Tensor:
    """The matrix s (C + s I)^-1 of a layer's benign moment C, (d_in, d_in) float32, symmetric.

    Args:
        moment: C, the mean h h^T of benign inputs, symmetric and positive semi-definite.
        damping: positive; a direction with ``damping`` times the mean energy is halved.

    Raises:
        ValueError: damping is not positive.
    """
    if damping <= 0:
        raise ValueError(f"damping must be positive, got {damping}")
    size = len(moment)
    s = damping * moment.trace() / size
    identity = torch.eye(size, dtype=torch.float64)
    return torch.linalg.solve(moment.double() / s + identity, identity).float()


def null_projections(moments: Mapping[str, Tensor], damping: float) -> dict[str, Tensor]:
    """``null_projection`` of every layer."""
    return {layer: null_projection(moment, damping) for layer, moment in moments.items()}


def project_inputs(lora: Lora, projections: Mapping[str, Tensor]) -> Lora:
    """The LoRA whose layers see their inputs through the projections."""
    return {
        name: LoraLayer(map_inputs(layer.down, projections[name]), layer.up)
        for name, layer in lora.items()
    }
