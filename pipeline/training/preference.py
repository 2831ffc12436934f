"""One training step of preference optimisation on cached pairs, and what it is measured against.

Both sides of a pair share posterior draw, noise, timestep, view and caption; policy and reference
see the same batch, chosen rows first, in one forward each. The reference is the same UNet with its
adapter off. With ``fixed_draws`` a row's random draws come from a small fixed set, so that the
reference sees each of them once, when training starts, and not at every visit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.diffusion import NoiseSchedule
from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.lora import adapter_off
from pipeline.progress import progress_bar
from pipeline.training.dpo import (
    LOSSES,
    TARGET_MARGINS,
    Errors,
    preference_metrics,
    scale_gradient,
    squared_error,
    winner_preserving_scale,
)
from pipeline.training.draws import Draws, RandomDraws
from pipeline.training.loop import over_reference
from pipeline.training.noised import NoisedPairs
from pipeline.training.processes import ALONE, Processes

CAPTIONS = {"unsafe": ("rejected",), "safe": ("chosen",), "both": ("rejected", "chosen")}


@dataclass(frozen=True)
class DpoSettings:
    """The preference objective; see ``pipeline.training.dpo`` for loss, beta and mu."""

    beta: float
    mu: float | None  # None trains without the winner-preserving safeguard
    captions: str  # "unsafe", "safe" or "both": which prompts condition a pair
    prompt_dropout: float  # share of rows conditioned on the empty prompt
    loss: str = "diffusion_dpo"  # a name in pipeline.training.dpo.LOSSES
    margin_weights: bool = False  # weigh a pair by how much the judge prefers its chosen side
    sft_weight: float = 0.0  # of the chosen side's own error, as in RPO (arXiv 2404.19733)
    retention: float = 0.0  # weight of staying like the base model on chosen image and safe prompt
    fixed_draws: int | None = None  # random draws per row; None draws afresh at every visit


def caption_rows(latents: LatentPairs, captions: str) -> tuple[Tensor, Tensor]:
    """Training rows as (pair index, prompt index), each (rows,); "both" makes two rows a pair."""
    sides = [getattr(latents, f"{side}_prompt") for side in CAPTIONS[captions]]
    return torch.arange(len(latents)).repeat(len(sides)), torch.cat(sides)


def preference_losses(
    policy: Tensor, target: Tensor, references: Errors, settings: DpoSettings
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Losses with gradient and detached metrics of predictions, (batch,) each.

    Args:
        policy: predictions of the trained model, (2 batch, c, h, w), chosen rows first.
        target: what was to be predicted.
        references: errors of the base model, (batch,) each.
        settings: loss, beta, mu and sft_weight count.
    """
    chosen, rejected = squared_error(policy, target).chunk(2)
    measured = preference_metrics(Errors(chosen, rejected), references, settings.beta)
    if settings.mu is not None:
        scale = winner_preserving_scale(*(policy - target).chunk(2), settings.mu)
        apart = measured["rewards/margins"] < TARGET_MARGINS[settings.loss]
        rejected = scale_gradient(rejected, scale.where(apart, scale.new_ones(())))
    losses = LOSSES[settings.loss](Errors(chosen, rejected), references, settings.beta)
    return losses + settings.sft_weight * chosen, measured


def parts_of(items: Tensor, most: int | None) -> tuple[Tensor, ...]:
    """Items in parts of ``most``; None: all in one part. No items are one empty part."""
    return items.split(most or max(1, len(items)))


def _forwards(unet, compiled: bool) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """What predicts with the adapter on and off. Two functions: each is compiled for its own use.

    The library's compiler keys its cache by function; one for both would hold guards for both.
    """

    def policy(**inputs: object) -> Tensor:
        return unet(**inputs).sample

    def reference(**inputs: object) -> Tensor:
        return unet(**inputs).sample

    if compiled:
        return torch.compile(policy), torch.compile(reference)
    return policy, reference


class PreferenceStep:
    """The training step on a UNet that carries a LoRA: (rows, generator) to losses and metrics.

    Of several processes each looks at its share of the rows, ``at_once`` of them at a time (None:
    all), with the same random draws as one alone would make for all. ``base_seed`` is that of the
    fixed draws. With precision "bf16" the UNet computes in bfloat16 where autocast finds that safe;
    trained weights and losses stay fp32. ``compiled`` runs policy and reference through
    torch.compile, apart: one needs gradients, the other no adapter.

    Raises InputError when pairs are to be weighed by a judge that prefers none of them, or there
    are fewer fixed draws than processes.
    """

    def __init__(
        self, unet, latents: LatentPairs, schedule: NoiseSchedule, settings: DpoSettings,
        *, at_once: int | None = None, base_seed: int = 0, precision: str = "fp32",
        compiled: bool = False, processes: Processes = ALONE,
    ) -> None:  # fmt: skip
        self._bf16, self._processes, self._at_once = precision == "bf16", processes, at_once
        self._policy, self._reference = _forwards(unet, compiled)
        self._unet, self._latents = unet, latents
        self._pairs = NoisedPairs(latents, schedule, unet.device)
        self._settings = settings
        self._random = RandomDraws(
            latents, len(schedule.alphas_cumprod), settings.prompt_dropout, settings.fixed_draws,
            base_seed,
        )  # fmt: skip
        self._pair_of, self._prompt_of = caption_rows(latents, settings.captions)
        self._weights = torch.ones(self.rows)
        if settings.margin_weights:
            margins = latents.margin.clamp(min=0)[self._pair_of]
            if not margins.any():
                raise InputError(
                    "experts.dpo.margin_weights: the judge prefers no pair's chosen side"
                )
            self._weights = margins / margins.mean()
        drawn = self.rows * (settings.fixed_draws or processes.count)
        if drawn < processes.count:
            raise InputError(
                f"{drawn} fixed draws of {len(latents)} pairs cannot be shared by "
                f"{processes.count} processes; raise experts.dpo.fixed_draws, or for pairs that "
                "are held out experts.watch.draws or held_out"
            )
        self._references: Tensor | None = None  # (rows, fixed draws, 2): chosen, rejected

    @property
    def rows(self) -> int:
        """How many rows there are: pairs times captions."""
        return len(self._pair_of)

    def name_row(self, row: int) -> str:
        """What an error calls a row: its pair."""
        return f"pair {self._latents.pair_ids[self._pair_of[row]]}"

    def __call__(
        self, rows: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:  # fmt: skip
        """Losses with gradient, and detached metrics by the field's names, part by part.

        The parts, (at_once,) each, are this process's share of the rows: with one process all of
        them.
        """
        count, references = self._settings.fixed_draws, None
        mine = self._processes.share(torch.arange(len(rows)))
        if count is None:
            draws = self._random.fresh(len(rows), generator).take(mine)
            rows = rows[mine]
        else:
            which = torch.randint(count, (len(rows),), generator=generator)[mine]
            rows = rows[mine]
            draws = self._random.fixed(rows, which)
            references = self._reference_bank()[rows, which]
        for part in parts_of(torch.arange(len(rows)), self._at_once):
            known = None if references is None else Errors(*references[part].unbind(1))
            yield self._losses(rows[part], draws.take(part), known)

    def rehearse(self, batch: int) -> None:
        """A forward and backward of what ``batch`` rows look at together, thrown away.

        What does not fit into memory fails here, and not after a long time on fixed draws.
        """
        rows = self._processes.share(torch.arange(batch) % self.rows)[: self._at_once]
        draws = self._random.fresh(len(rows), torch.Generator().manual_seed(0))
        self._losses(rows, draws, None)[0].mean().backward()
        self._unet.zero_grad()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Mean loss and metrics over every row and every fixed draw; needs ``fixed_draws``.

        The loss is the whole objective, with the terms of ``sft_weight`` and ``retention``.
        """
        totals: Tensor | float = 0.0
        bank, everything = self._reference_bank(), self._random.every_fixed(self.rows)
        for part in parts_of(self._processes.share(everything), self._at_once):
            rows, which = part.unbind(1)
            references = Errors(*bank[rows, which].unbind(1))
            losses, metrics = self._losses(rows, self._random.fixed(rows, which), references)
            named = {"loss": losses} | metrics
            totals = totals + torch.stack([v.double().sum() for v in named.values()])
        means = (self._processes.sum(totals) / len(everything)).tolist()
        found = dict(zip(named, means, strict=True))
        return found | over_reference(found)

    def _losses(
        self, rows: Tensor, draws: Draws, references: Errors | None
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """The whole objective and its metrics, (batch,) each; None computes the references."""
        losses, metrics = self._preference(rows, draws, references)
        losses = losses * self._weights[rows].to(losses)
        if self._settings.retention:
            drift = self._drift(rows, draws)
            losses = losses + self._settings.retention * drift
            metrics["error/retention"] = drift.detach()
        return losses, metrics

    def _preference(
        self, rows: Tensor, draws: Draws, references: Errors | None
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        inputs, target = self._inputs(rows, draws)
        if references is None:
            references = self._reference_errors(inputs, target)
        policy = self._predict(self._policy, inputs)
        return preference_losses(policy, target, references, self._settings)

    def _predict(self, forward: Callable[..., Tensor], inputs: dict[str, object]) -> Tensor:
        with torch.autocast(self._unet.device.type, torch.bfloat16, enabled=self._bf16):
            return forward(**inputs).float()

    def _inputs(self, rows: Tensor, draws: Draws) -> tuple[dict[str, object], Tensor]:
        """Arguments of the UNet and its target, (2 batch, ...), chosen rows first."""
        return self._pairs.both(self._pair_of[rows], self._prompt_of[rows], draws)

    @torch.no_grad()
    def _reference_errors(self, inputs: dict[str, object], target: Tensor) -> Errors:
        with adapter_off(self._unet):
            predicted = self._predict(self._reference, inputs)
        return Errors(*squared_error(predicted, target).chunk(2))

    def _drift(self, rows: Tensor, draws: Draws) -> Tensor:
        """Retention [ours]: how far the policy's prediction is from the reference's, (batch,).

        On the chosen image under its own safe prompt: what is safe is to stay as it was.
        """
        pairs = self._pair_of[rows]
        prompts = self._latents.chosen_prompt[pairs]
        inputs, _ = self._pairs.chosen(pairs, prompts, draws)
        with torch.no_grad(), adapter_off(self._unet):
            reference = self._predict(self._reference, inputs)
        return squared_error(self._predict(self._policy, inputs), reference)

    def _reference_bank(self) -> Tensor:
        """Reference errors of every row's fixed draws, (rows, draws, 2), computed at first use."""
        if self._references is None:
            bank = torch.zeros(self.rows, self._settings.fixed_draws, 2, device=self._unet.device)
            mine = self._processes.share(self._random.every_fixed(self.rows))
            with progress_bar(len(mine), "reference", "draw") as progress:
                for part in parts_of(mine, self._at_once):
                    rows, which = part.unbind(1)
                    inputs = self._inputs(rows, self._random.fixed(rows, which))
                    errors = self._reference_errors(*inputs)
                    bank[rows, which] = torch.stack([errors.chosen, errors.rejected], 1)
                    progress.update(len(part))
            self._references = self._processes.sum(bank)
        return self._references
