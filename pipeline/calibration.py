"""What LoRA layers see while the base model denoises: input to Co-Merge and the null space."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.diffusion import NoiseSchedule
from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.lora import Lora, LoraLayer
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


def _added(layer: LoraLayer, inputs: Tensor) -> Tensor:
    """dW h of a layer's inputs (..., d_in): (inputs, d_out) on the CPU."""
    h = inputs.reshape(-1, inputs.shape[-1]).float().cpu()
    return h @ layer.down.T @ layer.up.T


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
        activations = torch.stack([
            _added(expert[layer], inputs).abs() for expert in self._experts
        ])  # fmt: skip
        winners = activations.argmax(0)  # (inputs, d_out); the lowest index wins exact ties
        counts = torch.stack([(winners == i).sum(0) for i in range(len(self._experts))])
        self.counts[layer] = self.counts.get(layer, 0) + counts
        self.sums[layer] = self.sums.get(layer, 0) + activations.double().sum(1)


class InputMoments:
    """Streams layer inputs h; ``means[layer]`` is the mean of h h^T, (d_in, d_in) float64."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._inputs: dict[str, int] = {}

    def add(self, layer: str, inputs: Tensor) -> None:
        """Add one batch of a layer's inputs, (..., d_in)."""
        h = inputs.reshape(-1, inputs.shape[-1]).double().cpu()
        self._sums[layer] = self._sums.get(layer, 0) + h.T @ h
        self._inputs[layer] = self._inputs.get(layer, 0) + len(h)

    @property
    def means(self) -> dict[str, Tensor]:
        """The mean outer product of every layer's inputs."""
        return {layer: total / self._inputs[layer] for layer, total in self._sums.items()}


@contextmanager
def _watching(unet, layers: Sequence[str], add: Callable[[str, Tensor], None]):
    modules = dict(unet.named_modules())
    missing = [name for name in layers if name not in modules]
    if missing:
        raise InputError(f"the UNet has no layer {missing[0]}; the experts are of another model")
    handles = [
        modules[name].register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs[0]))
        for name in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Calibration:
    """Where calibration inputs come from.

    ``unet`` is the base model; an adapter that it carries must be off or still zero. Each category
    of ``latents`` gives ``prompts`` pairs, by a draw seeded with ``purpose``, at each of
    ``timesteps``. ``setting`` is what to lower when there are too few.
    """

    unet: torch.nn.Module
    latents: Mapping[str, LatentPairs]
    schedule: NoiseSchedule
    prompts: int
    timesteps: Sequence[int]
    base_seed: int
    purpose: str
    setting: str
    batch: int  # latents that the UNet denoises together

    @torch.no_grad()
    def stream(self, layers: Sequence[str], side: str, add: Callable[[str, Tensor], None]) -> None:
        """Feed ``add`` what layers see while the UNet denoises one side of every category's pairs.

        ``side`` is "chosen" or "rejected": its latents are noised to each timestep and denoised
        under their own prompt; the chosen side also under as many of the benign prompts, drawn
        anew for each timestep, a quarter of them the empty one that guidance uses.

        Raises InputError when a category has too few pairs or the UNet lacks a layer.
        """
        total = len(self.latents) * len(self.timesteps)
        with _watching(self.unet, layers, add), progress_bar(total, "calibrate", "batch") as bar:
            for category, pairs in self.latents.items():
                if len(pairs) < self.prompts:
                    raise InputError(
                        f"{category} has {len(pairs)} pairs, calibration asks for {self.prompts}; "
                        f"lower {self.setting}"
                    )
                seed = seed_for(self.base_seed, self.purpose, side, category)
                generator = torch.Generator().manual_seed(seed)
                rows = torch.randperm(len(pairs), generator=generator)[: self.prompts]
                means = getattr(pairs, f"{side}_mean")[rows, 0]
                corner = pairs.corner[rows, 0]
                prompts = getattr(pairs, f"{side}_prompt")[rows]
                if side == "chosen":
                    means, corner = means.repeat(2, 1, 1, 1), corner.repeat(2, 1)
                for t in self.timesteps:
                    asked = prompts
                    if side == "chosen":
                        drawn = torch.randint(
                            len(pairs.benign_prompt), rows.shape, generator=generator
                        )
                        drawn[::4] = 0  # the empty prompt, which encode_pairs puts first
                        asked = torch.cat([prompts, pairs.benign_prompt[drawn]])
                    noise = torch.randn(means.shape, generator=generator)
                    steps = torch.full((len(means),), t)
                    noisy, _ = self.schedule.noised(means, noise, steps)
                    for part in torch.arange(len(means)).split(self.batch):
                        given = pairs.conditions(asked[part], corner[part], self.unet.device)
                        self.unet(*(x[part].to(self.unet.device) for x in (noisy, steps)), **given)
                    bar.update()


def count_winners(experts: Mapping[str, Lora], calibration: Calibration) -> WinnerCounts:
    """Which expert reacts most to unsafe prompts, balanced over categories, per output row.

    Raises InputError when the experts do not fit each other, and as ``Calibration.stream``.
    """
    check_experts(experts)
    counts = WinnerCounts(list(experts.values()))
    calibration.stream(list(next(iter(experts.values()))), "rejected", counts.add)
    return counts


def own_activation(experts: Mapping[str, Lora], calibration: Calibration) -> dict[str, float]:
    """How strongly each expert answers to its own category's unsafe prompts.

    The root mean square of dW h over the layer's inputs h and outputs, and over layers.
    """
    strength = {}
    for category, expert in experts.items():
        squares: dict[str, list[float]] = {layer: [] for layer in expert}

        def add(layer: str, inputs: Tensor, expert=expert, squares=squares) -> None:
            squares[layer].append(_added(expert[layer], inputs).square().mean().item())

        own = replace(calibration, latents={category: calibration.latents[category]})
        own.stream(list(expert), "rejected", add)
        means = [math.fsum(values) / len(values) for values in squares.values()]
        strength[category] = math.sqrt(math.fsum(means) / len(means))
    return strength


def benign_moments(layers: Sequence[str], calibration: Calibration) -> dict[str, Tensor]:
    """The mean h h^T of every layer's inputs under safe and benign prompts, (d_in, d_in) each."""
    moments = InputMoments()
    calibration.stream(layers, "chosen", moments.add)
    return moments.means
