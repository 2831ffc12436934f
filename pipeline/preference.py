"""One training step of preference optimisation on cached pairs, and what it is measured against.

Both sides of a pair share posterior draw, noise, timestep and caption; policy and reference see the
same batch, chosen rows first, in one forward each. The reference is the same UNet with its adapter
off. With ``fixed_draws`` a row's random draws come from a small fixed set, so that the reference
sees each of them once, when training starts, and not at every visit.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dpo import (
    LOSSES,
    TARGET_MARGINS,
    Errors,
    preference_metrics,
    scale_gradient,
    squared_error,
    winner_preserving_scale,
)
from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.lora import adapter_off
from pipeline.progress import progress_bar
from pipeline.seeds import content_id, seed_for
from pipeline.train import over_reference

CAPTIONS = {"unsafe": ("rejected",), "safe": ("chosen",), "both": ("rejected", "chosen")}


@dataclass(frozen=True)
class DpoSettings:
    """The preference objective; see ``pipeline.dpo`` for loss, beta and mu."""

    beta: float
    mu: float | None  # None trains without the winner-preserving safeguard
    captions: str  # "unsafe", "safe" or "both": which prompts condition a pair
    prompt_dropout: float  # share of rows conditioned on the empty prompt
    loss: str = "diffusion_dpo"  # a name in pipeline.dpo.LOSSES
    margin_weights: bool = False  # weigh a pair by how much the judge prefers its chosen side
    sft_weight: float = 0.0  # of the chosen side's own error, as in RPO (arXiv 2404.19733)
    retention: float = 0.0  # weight of staying like the base model on chosen image and safe prompt
    fixed_draws: int | None = None  # random draws per row; None draws afresh at every visit


@dataclass(frozen=True)
class NoiseSchedule:
    """The base model's training noise."""

    alphas_cumprod: Tensor  # (timesteps,) cumulative signal levels
    prediction_type: str  # "epsilon" or "v_prediction"

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents and what the UNet is trained to predict of them, (batch, c, h, w) each.

        Raises InputError for another prediction type.
        """
        signal = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        if self.prediction_type == "epsilon":
            return noisy, noise
        if self.prediction_type == "v_prediction":
            return noisy, signal.sqrt() * noise - (1 - signal).sqrt() * clean
        raise InputError(f"the scheduler's prediction_type {self.prediction_type!r} is not known")


class Draws(NamedTuple):
    """Everything random about a batch of rows."""

    posterior: Tensor  # (batch, c, h, w), of the VAE's posterior
    noise: Tensor  # (batch, c, h, w)
    timesteps: Tensor  # (batch,) int64
    dropped: Tensor  # (batch,) bool: conditioned on the empty prompt


def caption_rows(latents: LatentPairs, captions: str) -> tuple[Tensor, Tensor]:
    """Training rows as (pair index, prompt index), each (rows,); "both" makes two rows a pair."""
    sides = [getattr(latents, f"{side}_prompt") for side in CAPTIONS[captions]]
    return torch.arange(len(latents)).repeat(len(sides)), torch.cat(sides)


def hold_out(latents: LatentPairs, pairs: int) -> tuple[LatentPairs, LatentPairs]:
    """Pairs to train on, and ``pairs`` held out, chosen by a hash of their ids.

    Raises InputError when that leaves nothing to train on.
    """
    if pairs >= len(latents):
        raise InputError(
            f"experts.watch.held_out ({pairs}) leaves none of {len(latents)} pairs to train on"
        )
    order = sorted(range(len(latents)), key=lambda k: content_id("held out", latents.pair_ids[k]))
    return latents.select(sorted(order[pairs:])), latents.select(sorted(order[:pairs]))


class PreferenceStep:
    """The training step on a UNet that carries a LoRA: (rows, generator) to losses and metrics.

    ``batch`` is the number of rows that the reference and ``measure`` look at together,
    ``base_seed`` is that of the fixed draws. With precision "bf16" the UNet computes in bfloat16
    where autocast finds that safe; weights and losses stay fp32.

    Raises InputError when pairs are to be weighed by a judge that prefers none of them.
    """

    def __init__(
        self, unet, latents: LatentPairs, schedule: NoiseSchedule, settings: DpoSettings,
        *, batch: int = 8, base_seed: int = 0, precision: str = "fp32",
    ) -> None:  # fmt: skip
        self._bf16 = precision == "bf16"
        self._unet, self._latents, self._schedule = unet, latents, schedule
        self._settings, self._batch, self._base_seed = settings, batch, base_seed
        self._pair_of, self._prompt_of = caption_rows(latents, settings.captions)
        self._weights = torch.ones(self.rows)
        if settings.margin_weights:
            margins = latents.margin.clamp(min=0)[self._pair_of]
            if not margins.any():
                raise InputError(
                    "experts.dpo.margin_weights: the judge prefers no pair's chosen side"
                )
            self._weights = margins / margins.mean()
        self._references: Tensor | None = None  # (rows, fixed draws, 2): chosen, rejected

    @property
    def rows(self) -> int:
        """How many rows there are: pairs times captions."""
        return len(self._pair_of)

    def __call__(
        self, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Losses (batch,) with gradient, and detached metrics (batch,) by the field's names."""
        count = self._settings.fixed_draws
        if count is None:
            draws = self._draw(len(rows), generator)
            references = None
        else:
            which = torch.randint(count, (len(rows),), generator=generator)
            draws = self._fixed(rows, which)
            references = Errors(*self._reference_bank()[rows, which].unbind(1))
        losses, metrics = self._preference(rows, draws, references)
        losses = losses * self._weights[rows].to(losses)
        if self._settings.retention:
            drift = self._drift(rows, draws)
            losses = losses + self._settings.retention * drift
            metrics["error/retention"] = drift.detach()
        return losses, metrics

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Mean loss and metrics over every row and every fixed draw; needs ``fixed_draws``."""
        totals: dict[str, float] = {}
        bank = self._reference_bank()
        everything = self._every_draw()
        for part in everything.split(self._batch):
            rows, which = part.unbind(1)
            references = Errors(*bank[rows, which].unbind(1))
            losses, metrics = self._preference(rows, self._fixed(rows, which), references)
            for name, value in ({"loss": losses} | metrics).items():
                totals[name] = totals.get(name, 0.0) + value.double().sum().item()
        means = {name: total / len(everything) for name, total in totals.items()}
        return means | over_reference(means)

    def _preference(
        self, rows: Tensor, draws: Draws, references: Errors | None
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        settings = self._settings
        inputs, target = self._inputs(rows, draws)
        if references is None:
            references = self._reference_errors(inputs, target)
        policy = self._predict(inputs)
        chosen, rejected = squared_error(policy, target).chunk(2)
        measured = preference_metrics(
            Errors(chosen.detach(), rejected.detach()), references, settings.beta
        )
        if settings.mu is not None:
            scale = winner_preserving_scale(*(policy - target).chunk(2), settings.mu)
            apart = measured["rewards/margins"] < TARGET_MARGINS[settings.loss]
            rejected = scale_gradient(rejected, scale.where(apart, scale.new_ones(())))
        losses = LOSSES[settings.loss](Errors(chosen, rejected), references, settings.beta)
        return losses + settings.sft_weight * chosen, measured

    def _predict(self, inputs: dict[str, object]) -> Tensor:
        with torch.autocast(self._unet.device.type, torch.bfloat16, enabled=self._bf16):
            return self._unet(**inputs).sample.float()

    def _inputs(self, rows: Tensor, draws: Draws) -> tuple[dict[str, object], Tensor]:
        """Arguments of the UNet and its target, (2 batch, ...), chosen rows first."""
        pairs, prompts = self._pair_of[rows], self._prompt_of[rows].clone()
        prompts[draws.dropped] = 0  # row 0 is the empty prompt
        clean = torch.cat([self._clean(side, pairs, draws) for side in ("chosen", "rejected")])
        return self._noised(clean, draws, prompts)

    def _noised(
        self, clean: Tensor, draws: Draws, prompts: Tensor
    ) -> tuple[dict[str, object], Tensor]:  # fmt: skip
        """As ``_inputs``, from clean latents of one side or of both after each other."""
        sides, device = len(clean) // len(prompts), self._unet.device
        timesteps = draws.timesteps.repeat(sides)
        noise = draws.noise.repeat(sides, 1, 1, 1)
        noisy, target = self._schedule.noised(clean, noise, timesteps)
        inputs = {"sample": noisy.to(device), "timestep": timesteps.to(device)}
        return inputs | self._latents.conditions(prompts.repeat(sides), device), target.to(device)

    def _clean(self, side: str, pairs: Tensor, draws: Draws) -> Tensor:
        """A sample of the posterior of one side's images, (batch, c, h, w)."""
        mean, std = (getattr(self._latents, f"{side}_{name}") for name in ("mean", "std"))
        return mean[pairs] + std[pairs] * draws.posterior

    @torch.no_grad()
    def _reference_errors(self, inputs: dict[str, object], target: Tensor) -> Errors:
        with adapter_off(self._unet):
            return Errors(*squared_error(self._predict(inputs), target).chunk(2))

    def _drift(self, rows: Tensor, draws: Draws) -> Tensor:
        """Retention [ours]: how far the policy's prediction is from the reference's, (batch,).

        On the chosen image under its own safe prompt: what is safe is to stay as it was.
        """
        pairs = self._pair_of[rows]
        clean = self._clean("chosen", pairs, draws)
        inputs, _ = self._noised(clean, draws, self._latents.chosen_prompt[pairs])
        with torch.no_grad(), adapter_off(self._unet):
            reference = self._predict(inputs)
        return squared_error(self._predict(inputs), reference)

    def _draw(
        self, count: int, generator: torch.Generator, part: tuple[float, float] = (0.0, 1.0)
    ) -> Draws:  # fmt: skip
        """Draw for ``count`` rows, timesteps from a part of the schedule."""
        shape = (count, *self._latents.chosen_mean.shape[1:])
        low, high = (int(bound * len(self._schedule.alphas_cumprod)) for bound in part)
        return Draws(
            torch.randn(shape, generator=generator), torch.randn(shape, generator=generator),
            torch.randint(low, high, (count,), generator=generator),
            torch.rand(count, generator=generator) < self._settings.prompt_dropout,
        )  # fmt: skip

    def _fixed(self, rows: Tensor, which: Tensor) -> Draws:
        """The fixed draws ``which`` of rows; the k-th of n has a timestep in the k-th n-th.

        They follow from a pair's id: other pairs, such as held-out ones, have other noise.
        """
        count = self._settings.fixed_draws
        parts = []
        for row, k in zip(rows.tolist(), which.tolist(), strict=True):
            caption, pair = divmod(row, len(self._latents))
            identity = self._latents.pair_ids[pair], caption, k
            generator = torch.Generator().manual_seed(seed_for(self._base_seed, "draw", *identity))
            parts.append(self._draw(1, generator, (k / count, (k + 1) / count)))
        return Draws(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _every_draw(self) -> Tensor:
        """All (row, fixed draw) there are, (rows x draws, 2)."""
        draws = torch.arange(self._settings.fixed_draws)
        return torch.cartesian_prod(torch.arange(self.rows), draws)

    def _reference_bank(self) -> Tensor:
        """Reference errors of every row's fixed draws, (rows, draws, 2), computed at first use."""
        if self._references is None:
            self._references = torch.empty(self.rows, self._settings.fixed_draws, 2,
                                           device=self._unet.device)  # fmt: skip
            everything = self._every_draw()
            with progress_bar(len(everything), "reference", "draw") as progress:
                for part in everything.split(self._batch):
                    rows, which = part.unbind(1)
                    errors = self._reference_errors(*self._inputs(rows, self._fixed(rows, which)))
                    stacked = torch.stack([errors.chosen, errors.rejected], 1)
                    self._references[rows, which] = stacked
                    progress.update(len(part))
        return self._references
