"""Small experts and calibrations for the tests of merging."""

import copy

import torch

from pipeline.lora import LoraLayer, attach_lora, extract_lora
from pipeline.merging.calibration import MergeCalibration
from pipeline.nullspace.moments import Moments, WinnerCounts

LAYERS = ("x.to_k", "x.to_q")


def layer(matrix):
    """A LoRA layer whose delta is the given matrix: up is the matrix, down the identity."""
    matrix = torch.tensor(matrix, dtype=torch.float32)
    return LoraLayer(torch.eye(matrix.shape[1]), matrix)


def random_expert(seed, rank=2, d_in=5, d_out=6, layers=LAYERS):
    """An expert with random factors."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: LoraLayer(torch.randn(rank, d_in, generator=rng),
                        torch.randn(d_out, rank, generator=rng))
        for name in layers
    }  # fmt: skip


def adapter_experts(unet):
    """Two experts with random factors on a UNet's to_q and to_v; the UNet itself stays bare."""
    experts = {}
    for seed, name in enumerate("ab"):
        parameters = attach_lora(copy.deepcopy(unet), 2, ["to_q", "to_v"], seed=seed)
        rng = torch.Generator().manual_seed(seed)
        for parameter in parameters.values():
            parameter.data = torch.randn(parameter.shape, generator=rng)
        experts[name] = extract_lora(parameters)
    return experts


def moment(seed, size, inputs=40):
    """The mean outer product of random inputs."""
    h = torch.randn(inputs, size, generator=torch.Generator().manual_seed(seed)).double()
    return h.T @ h / inputs


def moments(seed, lora):
    """Random moments of every layer of a LoRA, each its own."""
    return Moments(
        {name: moment(seed + k, value.down.shape[1]) for k, (name, value) in
         enumerate(sorted(lora.items()))},
        {name: name for name in lora},
    )  # fmt: skip


def calibration_of(experts, seed=9, inputs=40):
    """What a merge knows beside the experts, from random inputs."""
    counts, whole = (
        WinnerCounts(experts),
        {k: v for lora in experts.values() for k, v in lora.items()},
    )
    rng = torch.Generator().manual_seed(seed)
    for name in sorted(whole):
        if all(name in lora for lora in experts.values()):
            counts.add(name, torch.randn(inputs, whole[name].down.shape[1], generator=rng))
    return MergeCalibration(
        moments(100, whole),
        {name: moments(200 + 10 * ord(name[0]), whole) for name in experts},
        counts.winners,
    )
