"""Algebra on LoRA layers: exact sums, truncation to a rank, and what a delta amounts to."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.lora import Lora, LoraLayer


def no_delta(d_out: int, d_in: int) -> LoraLayer:
    """The layer of rank 0 that adds nothing."""
    return LoraLayer(torch.zeros(0, d_in), torch.zeros(d_out, 0))


def stack_scaled(layers: Sequence[LoraLayer], scales: Sequence[Tensor | float]) -> LoraLayer:
    """The exact LoRA of sum_i diag(scales[i]) up_i down_i; scales are scalars or (d_out,)."""
    ups = [
        layer.up * torch.as_tensor(scale).reshape(-1, 1)
        for layer, scale in zip(layers, scales, strict=True)
    ]
    return LoraLayer(torch.cat([layer.down for layer in layers]), torch.cat(ups, 1))


def scale_lora(lora: Lora, factor: float) -> Lora:
    """The LoRA whose deltas are ``factor`` times as large."""
    return {name: LoraLayer(layer.down, layer.up * factor) for name, layer in lora.items()}


def product(one: LoraLayer, other: LoraLayer) -> float:
    """The inner product of two deltas, sum of one.delta * other.delta, without forming them."""
    ups = one.up.double().T @ other.up.double()
    return float((ups * (one.down.double() @ other.down.double().T)).sum())


def truncate(layer: LoraLayer, rank: int) -> LoraLayer:
    """The nearest delta of at most ``rank``, by SVD (Eckart-Young).

    Found in the small space that ``up`` and ``down`` span, so the dense delta is never formed.
    A layer of no higher rank comes back as it is.
    """
    if len(layer.down) <= rank:
        return layer
    left, core_left = torch.linalg.qr(layer.up.double())
    right, core_right = torch.linalg.qr(layer.down.double().T)
    u, s, vt = torch.linalg.svd(core_left @ core_right.T, full_matrices=False)
    return _balanced(left @ u[:, :rank], s[:rank], vt[:rank] @ right.T)


def factorise(delta: Tensor, rank: int) -> LoraLayer:
    """The nearest LoRA layer of at most ``rank`` to a dense delta (d_out, d_in), by SVD."""
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    return _balanced(u[:, :rank], s[:rank], vt[:rank])


def _balanced(u: Tensor, s: Tensor, vt: Tensor) -> LoraLayer:
    """u diag(s) vt with the singular values shared by both factors, float32."""
    root = s.sqrt()
    return LoraLayer((root[:, None] * vt).float().contiguous(), (u * root).float().contiguous())
