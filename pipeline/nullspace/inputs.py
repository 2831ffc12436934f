"""What LoRA layers see while the base model denoises: input to merging and the null space."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.diffusion import NoiseSchedule
from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.nullspace.moments import InputMoments, Moments
from pipeline.progress import progress_bar
from pipeline.seeds import seed_for


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
        what = f"calibrate {next(iter(self.latents)) if len(self.latents) == 1 else 'all'}"
        with _watching(self.unet, layers, add), progress_bar(total, what, "batch") as bar:
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

    def leaders(self, layers: Sequence[str]) -> dict[str, str]:
        """Each layer's first layer that sees the very same input, found in one forward pass."""
        seen: list[tuple[Tensor, str]] = []  # holds the tensors, so that none's place is reused

        def watch(layer: str, inputs: Tensor) -> None:
            first = next((name for tensor, name in seen if tensor is inputs), layer)
            found[layer] = first
            if first == layer:
                seen.append((inputs, layer))

        found: dict[str, str] = {}
        one = replace(
            self, prompts=1, timesteps=self.timesteps[:1], latents=dict([*self.latents.items()][:1])
        )
        one.stream(layers, "rejected", watch)
        return found

    def moments(self, layers: Sequence[str], side: str) -> Moments:
        """The mean h h^T of every layer's inputs on one side; see ``stream``."""
        leaders, sums = self.leaders(layers), InputMoments()
        self.stream(sorted(set(leaders.values())), side, sums.add)
        return Moments(sums.means, leaders)

    def of(self, category: str) -> "Calibration":
        """The same with one category's prompts only."""
        return replace(self, latents={category: self.latents[category]})
