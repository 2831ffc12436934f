"""What every LoRA layer sees while the base model denoises unsafe prompts: input to Co-Merge."""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.lora import Lora
from pipeline.progress import progress_bar
from pipeline.seeds import seed_for


def check_experts(experts: Mapping[str, Lora]) -> None:
    """Raise InputError unless there is an expert and all cover the same layers and shapes."""
    if not experts:
        raise InputError("no experts to merge; train at least one")
    first, reference = next(iter(experts.items()))
    for name, lora in experts.items():
        if lora.keys() != reference.keys():
            odd = sorted(lora.keys() ^ reference.keys())[0]
            raise InputError(f"experts {first} and {name} differ in layers, first in {odd}")
        for layer in lora:
            ours, theirs = lora[layer].delta.shape, reference[layer].delta.shape
            if ours != theirs:
                raise InputError(f"{layer}: expert {first} has shape {tuple(theirs)}, "
                                 f"{name} {tuple(ours)}")  # fmt: skip


class WinnerCounts:
    """Streams layer inputs and counts, per output row, which expert reacts most (METHOD §1.3).

    For layer inputs h and experts i with deltas dW_i, ``counts[layer][i, j]`` is the number of
    inputs for which |(dW_i h)_j| is the largest over the experts, ``sums[layer][i, j]`` the sum
    of |(dW_i h)_j|, kept to break ties. Only these (experts, d_out) tables are stored.
    """

    def __init__(self, experts: Sequence[Lora]) -> None:
        self._experts = experts
        self.counts: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}

    def add(self, layer: str, inputs: Tensor) -> None:
        """Count one batch of a layer's inputs, (..., d_in)."""
        h = inputs.reshape(-1, inputs.shape[-1]).float().cpu()
        activations = torch.stack([
            (h @ expert[layer].down.T @ expert[layer].up.T).abs() for expert in self._experts
        ])  # fmt: skip
        winners = activations.argmax(0)  # (inputs, d_out); the lowest index wins exact ties
        counts = torch.stack([(winners == i).sum(0) for i in range(len(self._experts))])
        self.counts[layer] = self.counts.get(layer, 0) + counts
        self.sums[layer] = self.sums.get(layer, 0) + activations.double().sum(1)


@contextmanager
def _watching(unet, layers: Sequence[str], counts: WinnerCounts):
    modules = dict(unet.named_modules())
    missing = [name for name in layers if name not in modules]
    if missing:
        raise InputError(f"the UNet has no layer {missing[0]}; the experts are of another model")
    handles = [
        modules[name].register_forward_pre_hook(
            lambda _, inputs, name=name: counts.add(name, inputs[0])
        )
        for name in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def count_winners(
    unet, experts: Mapping[str, Lora], latents: Mapping[str, LatentPairs], alphas_cumprod: Tensor,
    *, prompts: int, timesteps: Sequence[int], base_seed: int,
) -> WinnerCounts:  # fmt: skip
    """Run the base UNet on noised latents of unsafe prompts, the same number per category.

    Args:
        unet: the base model without any adapter.
        experts: one LoRA per category, all over the same layers.
        latents: the cached pairs of the same categories; their rejected side is noised to each
            timestep and denoised under its own unsafe prompt.
        prompts: pairs taken per category, by a seeded draw.

    Raises:
        InputError: the experts do not fit each other, or a category has too few pairs.
    """
    check_experts(experts)
    counts = WinnerCounts(list(experts.values()))
    layers = list(next(iter(experts.values())))
    total = len(latents) * len(timesteps)
    with _watching(unet, layers, counts), progress_bar(total, "calibrate", "batch") as progress:
        for category, cached in latents.items():
            if len(cached) < prompts:
                raise InputError(
                    f"{category} has {len(cached)} pairs, merge.calibration_prompts asks for "
                    f"{prompts}; lower it"
                )
            generator = torch.Generator().manual_seed(seed_for(base_seed, "calibration", category))
            rows = torch.randperm(len(cached), generator=generator)[:prompts]
            embeds = cached.prompt_embeds[cached.rejected_prompt[rows]]
            for t in timesteps:
                noise = torch.randn(cached.rejected_mean[rows].shape, generator=generator)
                signal = alphas_cumprod[t]
                noisy = signal.sqrt() * cached.rejected_mean[rows] + (1 - signal).sqrt() * noise
                steps = torch.full((prompts,), t)
                unet(*(x.to(unet.device) for x in (noisy, steps, embeds)))
                progress.update()
    return counts
