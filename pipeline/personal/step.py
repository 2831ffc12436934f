"""One training step of the user adapter: preferences that hold for one user and not for another.

Both sides of a row's pair are shown under one caption, as in ``pipeline.training``; the policy
sees the row's user, the reference, the same UNet with the adapter off, sees none. Rows whose target
is the base model are not preferences: the policy is to predict what the reference does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.diffusion import NoiseSchedule
from pipeline.latents import LatentPairs
from pipeline.personal.adapter import PersonalAdapter
from pipeline.personal.rows import PersonalRows, balanced
from pipeline.personal.user_attention import UserBatch
from pipeline.training.dpo import Errors, squared_error
from pipeline.training.draws import Draws, RandomDraws
from pipeline.training.loop import over_reference
from pipeline.training.noised import NoisedPairs
from pipeline.training.preference import DpoSettings, parts_of, preference_losses
from pipeline.training.processes import ALONE, Processes


@dataclass(frozen=True)
class PersonalSettings:
    """What the adapter is taught beside preferences [ours]."""

    preserve_weight: float = 0.0  # of rows that are to stay like the base model, times beta / 2
    allowed_share: float = 0.0  # of a batch: allowed categories, that stay like the base model
    benign_share: float = 0.0  # of a batch: benign prompts, that stay like it for everybody
    profile_dropout: float = 0.0  # of a batch: the null user, who stays like it
    mix_bans: bool = False  # a row's other bans are drawn by coin: its preference depends on none
    route_weight: float = 0.0  # of "an unsafe caption's own category answers, else nothing does"


class PersonalStep:
    """The training step on a UNet that carries a user adapter: (rows, generator) to losses.

    Its rows are the preferences; a share of every batch is replaced by rows that are to stay like
    the base model. ``fixed`` is how many fixed draws ``measure`` looks at of each of all rows;
    ``at_once`` rows are looked at together, None: all of a process.
    """

    def __init__(
        self, unet, adapter: PersonalAdapter, users: UserBatch, latents: LatentPairs,
        rows: PersonalRows, schedule: NoiseSchedule, dpo: DpoSettings, settings: PersonalSettings,
        *, base_seed: int = 0, precision: str = "fp32", fixed: int = 1,
        processes: Processes = ALONE, at_once: int | None = None,
    ) -> None:  # fmt: skip
        self._at_once = at_once
        self._unet, self._adapter, self._users, self._latents = unet, adapter, users, latents
        self._all, self._dpo, self._settings = rows, dpo, settings
        self._preferences = balanced(torch.nonzero(~rows.to_base)[:, 0], rows.categories)
        self._allowed = torch.nonzero(rows.to_base)[:, 0]
        self._pairs = NoisedPairs(latents, schedule, unet.device)
        self._bf16, self._fixed, self._processes = precision == "bf16", fixed, processes
        self._random = RandomDraws(
            latents, len(schedule.alphas_cumprod), dpo.prompt_dropout, fixed, base_seed
        )

    @property
    def rows(self) -> int:
        """How many preferences there are, those of rarely banned categories counted repeatedly."""
        return len(self._preferences)

    def __call__(
        self, rows: Tensor, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:  # fmt: skip
        """Losses with gradient and detached metrics of this process's share of the rows, by part.

        The metrics of preferences are weighed so that their mean over the batch is their mean over
        its preferences.
        """
        chosen, users = self._compose(rows, generator)
        draws = self._random.fresh(len(rows), generator)
        preferred = (~chosen.to_base).float().mean()
        least = 1 / len(rows)  # where there are none, nothing is divided by nothing
        mine = self._processes.share(torch.arange(len(rows)))
        for some in parts_of(mine, self._at_once):
            part = chosen.take(some)
            losses, metrics, drift = self._losses(part, users.take(some), draws.take(some))
            told = (~part.to_base).to(losses) / preferred.clamp(min=least).to(losses)
            named = {name: value * told for name, value in metrics.items()}
            kept = part.to_base.to(losses) / (1 - preferred).clamp(min=least).to(losses)
            yield losses, named | {"error/from_base": drift.detach() * kept}

    def rehearse(self, batch: int) -> None:
        """A forward and backward of what ``batch`` rows look at together, thrown away.

        Too little memory shows here.
        """
        rows = torch.arange(batch) % self.rows
        losses, _ = next(iter(self(rows, torch.Generator().manual_seed(0))))
        losses.mean().backward()
        self._adapter.zero_grad()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Means over every row, each at its fixed draws: of preferences, and of the others.

        ``loss`` is the whole objective, ``error/from_base`` how far rows that are to stay like the
        base model are from it.
        """
        everything = self._processes.share(self._random.every_fixed(len(self._all)))
        sums: dict[str, list[float]] = {}
        for piece in parts_of(everything, self._at_once):
            rows, which = piece.unbind(1)
            part = self._all.take(rows)
            identity = part.unsafe_caption * len(self._latents) + part.pairs
            draws = self._random.fixed(identity, which)
            draws = draws._replace(dropped=torch.zeros_like(draws.dropped))
            losses, metrics, drift = self._losses(part, self._users.take(part.users), draws)
            told = {name: value[~part.to_base] for name, value in metrics.items()}
            told |= {"loss": losses, "error/from_base": drift[part.to_base]}
            for name, value in told.items():
                total = sums.setdefault(name, [0.0, 0.0])
                total[0] += float(value.double().sum())
                total[1] += len(value)
        found = torch.tensor(list(sums.values()), dtype=torch.float64, device=self._unet.device)
        totals = self._processes.sum(found)  # where the processes meet: NCCL sums no CPU tensors
        means = {name: (total / count).item() for name, (total, count)
                 in zip(sums, totals, strict=True) if count}  # fmt: skip
        return means | over_reference(means)

    def _compose(
        self, rows: Tensor, generator: torch.Generator
    ) -> tuple[PersonalRows, UserBatch]:  # fmt: skip
        """The rows of a batch and their users: preferences, some of them replaced."""
        settings, n = self._settings, len(rows)
        rows, kind = self._preferences[rows], torch.rand(n, generator=generator)
        other = torch.randint(max(1, len(self._allowed)), (n,), generator=generator)
        if len(self._allowed):
            rows = torch.where(kind < settings.allowed_share, self._allowed[other], rows)
        part = self._all.take(rows)
        benign = (kind >= settings.allowed_share) & (
            kind < settings.allowed_share + settings.benign_share
        )
        texts = self._latents.benign_prompt
        drawn = texts[torch.randint(len(texts), (n,), generator=generator)]
        nobody = torch.rand(n, generator=generator) < settings.profile_dropout
        mixed = torch.rand(n, len(self._adapter.categories), generator=generator) < 0.5
        users = self._users.take(part.users)
        if settings.mix_bans:
            own = torch.arange(n), part.categories
            bans = mixed.to(users.bans)
            bans[own] = users.bans[own]
            users = UserBatch(users.vectors, bans, users.known)
        return PersonalRows(
            part.users, part.pairs, torch.where(benign, drawn, part.prompts), part.categories,
            part.unsafe_caption & ~benign, part.unsafe_chosen, part.to_base | benign | nobody,
        ), users.without(nobody)  # fmt: skip

    def _losses(
        self, part: PersonalRows, users: UserBatch, draws: Draws
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:  # fmt: skip
        """Objective, metrics of the preference, and distance to the base model, (batch,) each."""
        inputs, target = self._pairs.both(part.pairs, part.prompts, draws)
        with torch.no_grad(), self._adapter.off():
            reference = self._predict(inputs)
        self._adapter.show(users.repeat(2).to(self._unet.device, torch.float32))
        with self._adapter.watching() as shares:
            policy = self._predict(inputs)
        drift = torch.stack(squared_error(policy, reference).chunk(2)).mean(0)
        swap = part.unsafe_chosen.to(policy.device)
        ordered = [_chosen_first(value, swap) for value in (policy, target, reference)]
        policy, target, reference = ordered
        errors = Errors(*squared_error(reference, target).chunk(2))
        losses, metrics = preference_losses(policy, target, errors, self._dpo)
        kept = self._settings.preserve_weight * self._dpo.beta / 2 * drift
        losses = torch.where(part.to_base.to(losses.device), kept, losses)
        if shares and self._settings.route_weight:
            unsafe = part.unsafe_caption & ~draws.dropped
            wanted = torch.where(unsafe, part.categories, len(self._adapter.categories))
            losses = losses + self._settings.route_weight * _misrouted(
                shares, wanted, len(self._adapter.categories)
            )
        return losses, metrics, drift

    def _predict(self, inputs: dict[str, object]) -> Tensor:
        with torch.autocast(self._unet.device.type, torch.bfloat16, enabled=self._bf16):
            return self._unet(**inputs).sample.float()


def _misrouted(shares: Sequence[Tensor], wanted: Tensor, categories: int) -> Tensor:
    """-log of the attention, averaged over pixels, that goes where it should, (batch,).

    ``wanted`` (batch,) is a category's position, or one more: the sink's. Mean over layers, sides.
    """
    wanted, total = wanted.repeat(2), 0.0
    rows = torch.arange(len(wanted))
    for share in shares:
        own = share[..., :-1].unflatten(-1, (categories, -1)).logsumexp(-1)
        grouped = torch.cat([own, share[..., -1:]], -1)
        found = grouped[rows, :, wanted.to(grouped.device)]
        total = total - found.logsumexp(1) + torch.tensor(found.shape[1]).log()
    return torch.stack((total / len(shares)).chunk(2)).mean(0)


def _chosen_first(value: Tensor, swap: Tensor) -> Tensor:
    """Rows of both sides, (2 batch, ...), with the sides exchanged where ``swap`` says so."""
    first, second = value.chunk(2)
    which = swap.view(-1, *[1] * (value.ndim - 1))
    return torch.cat([torch.where(which, second, first), torch.where(which, first, second)])
