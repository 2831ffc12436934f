"""Trains the user adapter on cached pairs, with the loop, loss and checkpoints of the experts."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.diffusion import NoiseSchedule, load_noise_schedule, load_unet
from pipeline.errors import InputError
from pipeline.latents import LatentPairs, hold_out, join_latents
from pipeline.live import live_metrics
from pipeline.lora import round_frozen
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.files import save_adapter
from pipeline.personal.rows import PersonalRows, check_floor, check_rows
from pipeline.personal.simulate import banned_of
from pipeline.personal.space import UserSpace
from pipeline.personal.step import PersonalSettings, PersonalStep
from pipeline.personal.user_attention import UserBatch
from pipeline.personal.users import trained
from pipeline.records import User, UserPair
from pipeline.seeds import ID_LENGTH, content_id, seed_for
from pipeline.sources import ModelSource
from pipeline.storage import write_csv, write_json
from pipeline.training.checks import (
    check_base,
    check_batch,
    check_latents,
    training_must_fit,
    unet_must_fit,
)
from pipeline.training.loop import TrainSettings, kept_entry, train, without_housekeeping
from pipeline.training.preference import DpoSettings
from pipeline.training.processes import ALONE, Processes, join_processes

SUMMARY = ("loss", "rewards/accuracies", "rewards/margins", "error/chosen_over_reference",
           "error/from_base", "eval/loss", "eval/rewards/accuracies", "eval/rewards/margins",
           "eval/error/from_base")  # fmt: skip
WATCHED_DRAWS = 2  # fixed, of each row
TRAINING_VERSION = 1  # raise it when a change of code changes training: checkpoints hash it


@dataclass(frozen=True)
class PersonalRecipe:
    """Everything that shapes an adapter besides its data and base model."""

    adapter: AdapterSettings
    dpo: DpoSettings
    beside: PersonalSettings
    optim: TrainSettings
    held_out: int = 0  # pairs per category that are not trained on
    watched: int = 0  # rows of validation users on those pairs that are measured while training

    @classmethod
    def of(cls, values: Mapping[str, Mapping[str, object]], seed: int) -> "PersonalRecipe":
        """From plain values by section, as in params.yaml's ``psa``."""
        return cls(
            AdapterSettings(**values["adapter"]),
            DpoSettings(captions="both", **values["dpo"]), PersonalSettings(**values["beside"]),
            TrainSettings(seed=seed, **values["optim"]),
            values["watch"]["held_out"], values["watch"]["rows"],
        )  # fmt: skip

    @property
    def shaping(self) -> dict[str, object]:
        """Every setting that the trained weights depend on."""
        return asdict(self) | {"optim": without_housekeeping(asdict(self.optim))}


def user_batch(users: Sequence[User], categories: Sequence[str]) -> UserBatch:
    """Users as the adapter is given them."""
    bans = [[float(c in banned_of(user)) for c in categories] for user in users]
    vectors = np.stack([np.frombuffer(user.vector, np.float32) for user in users])
    return UserBatch.of(torch.from_numpy(vectors.copy()), torch.tensor(bans))


@training_must_fit("psa")
def train_adapter(
    unet, pairs: Mapping[str, LatentPairs], users: Sequence[User], rows: Sequence[UserPair],
    schedule: NoiseSchedule, recipe: PersonalRecipe, checkpoints: Path, live: Path | None = None,
    processes: Processes = ALONE,
) -> tuple[PersonalAdapter, list[dict[str, float]]]:  # fmt: skip
    """Train an adapter; returns it, detached, and the history of step metrics.

    ``pairs`` are by category, in the order of the adapter's gates.

    Raises:
        InputError: there is nothing to train on, the latents do not fit the UNet or prefer the
            wrong side, or a step does not fit into memory.
        FloatingPointError: see ``pipeline.training.loop.train``.
    """
    for category, latents in pairs.items():
        check_latents(unet, latents, category)
    check_batch(recipe.optim.batch, processes, "psa")
    check_rows(rows, {u.user_id for u in users}, {i for p in pairs.values() for i in p.pair_ids})
    if recipe.held_out >= (fewest := min(map(len, pairs.values()))):
        raise InputError(f"psa.watch.held_out ({recipe.held_out}) leaves none of a category's "
                         f"{fewest} pairs to train on")  # fmt: skip
    optim, batch = recipe.optim, user_batch(users, list(pairs))
    adapter = PersonalAdapter(
        unet, recipe.adapter, list(pairs), batch.vectors.shape[1], optim.seed
    ).to(unet.device)
    split = {c: hold_out(p, recipe.held_out) for c, p in pairs.items()}
    kept, held_out = (join_latents([s[k] for s in split.values()]) for k in (0, 1))
    parts = [(kept, trained_rows(users, rows, kept)),
             (held_out, watched_rows(users, rows, held_out, recipe))]  # fmt: skip
    positions = {user.user_id: k for k, user in enumerate(users)}
    step, watched = (
        PersonalStep(
            unet, adapter, batch, latents, PersonalRows.of(some, positions, latents, list(pairs)),
            schedule, recipe.dpo, recipe.beside, base_seed=optim.seed, precision=optim.precision,
            fixed=WATCHED_DRAWS, processes=processes, at_once=optim.at_once(processes.count),
        )
        for latents, some in parts
    )  # fmt: skip
    if not step.rows:
        raise InputError("no user prefers anything: nobody who is trained on bans a category; "
                         "simulate more users")  # fmt: skip
    if 0 < len(parts[1][1]) * WATCHED_DRAWS < processes.count:
        raise InputError(f"psa.watch.rows: {len(parts[1][1])} rows cannot be shared by "
                         f"{processes.count} processes; raise it, or set it to 0")  # fmt: skip
    identity = [TRAINING_VERSION, {c: p.digest() for c, p in pairs.items()}, recipe.shaping,
                digest(users, rows)]  # fmt: skip
    if optim.precision == "bf16":
        round_frozen(unet)
    adapter.attach(unet)
    unet.train()
    if optim.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    try:
        with live_metrics(live if processes.main else None) as observe:
            step.rehearse(optim.batch)
            history = train(
                dict(adapter.named_parameters()), step.rows, step, optim, checkpoints, identity,
                watched.measure if parts[1][1] else None, observe=observe, processes=processes,
                name_row="preference {} or what replaced it".format,
            )  # fmt: skip
    finally:
        adapter.detach()
    unet.eval()
    return adapter, history


def trained_rows(
    users: Sequence[User], rows: Sequence[UserPair], latents: LatentPairs
) -> list[UserPair]:  # fmt: skip
    """The rows of trained users on pairs of ``latents``."""
    known, here = set(latents.pair_ids), {u.user_id for u in users if trained(u.split)}
    return [row for row in rows if row.pair_id in known and row.user_id in here]


def watched_rows(
    users: Sequence[User], rows: Sequence[UserPair], latents: LatentPairs, recipe: PersonalRecipe
) -> list[UserPair]:  # fmt: skip
    """Some rows of validation users on pairs of ``latents``, the same in every run."""
    known, here = set(latents.pair_ids), {u.user_id for u in users if u.split == "val"}
    some = [row for row in rows if row.pair_id in known and row.user_id in here]
    return sorted(some, key=lambda r: seed_for(recipe.optim.seed, asdict(r)))[: recipe.watched]


def digest(users: Sequence[User], rows: Sequence[UserPair]) -> str:
    """Identifies who is taught what: training goes on only from its own checkpoint."""
    told = [{k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(user).items()}
            for user in users]  # fmt: skip
    return content_id(told, [asdict(row) for row in rows])


@dataclass(frozen=True)
class PersonalOutputs:
    """Where a finished adapter is written, and what training leaves behind while it runs."""

    adapter: Path
    metrics: Path
    steps: Path
    checkpoints: Path  # folder, gone when the run is finished
    live: Path | None  # folder of DVCLive's


def train_and_save(
    source: ModelSource, pairs: Mapping[str, LatentPairs], users: Sequence[User],
    rows: Sequence[UserPair], space: UserSpace, recipe: PersonalRecipe, out: PersonalOutputs,
) -> None:  # fmt: skip
    """Train an adapter of a model; write it, a summary, step metrics.

    Under ``accelerate launch`` the processes train together, and the main one writes.

    Raises InputError when latents or users were made for something else, or a row goes against
    the policy's floor.
    """
    processes, base_revision = join_processes(), source.identity
    check_base(pairs, base_revision)
    if list(space.categories) != list(pairs):
        raise InputError(f"the users know the categories {', '.join(space.categories)}, the pairs "
                         f"are of {', '.join(pairs)}; run `dvc repro simulate_users`")  # fmt: skip
    space.check_users(users)
    check_floor(rows, users, space)
    with unet_must_fit():
        unet = load_unet(source)
    adapter, history = train_adapter(
        unet, pairs, users, rows, load_noise_schedule(source), recipe,
        out.checkpoints, out.live, processes,
    )  # fmt: skip
    if processes.main:
        kept = kept_entry(history, recipe.optim)
        summary = {"users": sum(trained(u.split) for u in users), "steps": kept["step"],
                   "parameters": sum(p.numel() for p in adapter.parameters())}  # fmt: skip
        summary |= {name: round(kept[name], 5) for name in SUMMARY if name in kept}
        save_adapter(out.adapter, adapter, space, {
            "base_model": source.path, "base_revision": base_revision, "recipe": recipe.shaping,
            "recipe_hash": content_id(recipe.shaping), "users": digest(users, rows),
            "data": {c: p.digest()[:ID_LENGTH] for c, p in pairs.items()}, "metrics": summary,
        })  # fmt: skip
        write_csv(out.steps, history)
        write_json(out.metrics, summary)
        shutil.rmtree(out.checkpoints, ignore_errors=True)
    processes.part()
