"""Diffusion-DPO training of a LoRA on cached pairs: one category's expert, or all jointly."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from pipeline.diffusion import NoiseSchedule, load_noise_schedule, load_unet
from pipeline.latents import LatentPairs, hold_out, join_latents
from pipeline.live import live_metrics
from pipeline.lora import (
    Lora,
    attach_lora,
    extract_lora,
    inputs_through,
    lora_scale,
    round_frozen,
    save_lora,
    train_only_rows,
)
from pipeline.nullspace.inputs import Calibration
from pipeline.nullspace.projection import null_projections, project_inputs
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
from pipeline.training.preference import DpoSettings, PreferenceStep
from pipeline.training.processes import ALONE, Processes, join_processes

SUMMARY = ("loss", "rewards/accuracies", "rewards/margins", "error/chosen_over_reference",
           "error/rejected_over_reference", "eval/loss", "eval/rewards/accuracies",
           "eval/rewards/margins")  # fmt: skip
TRAINING_VERSION = 4  # raise it when a change of code changes training: checkpoints hash it


@dataclass(frozen=True)
class LoraSettings:
    """The trained adapter; see ``pipeline.nullspace.projection`` for the last three."""

    rank: int
    targets: Sequence[str]
    alpha: float | None = None  # the delta counts alpha / rank times; None: alpha is rank
    rslora: bool = False  # it counts alpha / sqrt(rank) times
    dora: bool = False  # also train each output row's magnitude; cannot be merged
    row_share: float = 1.0  # of each layer's output rows; which ones is drawn by category
    null_damping: float | None = None  # None trains without a null space
    null_prompts: int = 0  # per category: safe prompts, and as many benign ones
    null_timesteps: Sequence[int] = ()


@dataclass(frozen=True)
class WatchSettings:
    """What is measured on pairs that are held out of training, at fixed draws."""

    held_out: int = 0  # pairs per category
    draws: int = 4  # fixed draws per held-out row
    dvclive: bool = False  # log every entry with DVCLive while training


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a LoRA besides its data and base model."""

    lora: LoraSettings
    dpo: DpoSettings
    optim: TrainSettings
    watch: WatchSettings = WatchSettings()

    @classmethod
    def of(cls, values: Mapping[str, Mapping[str, object]], seed: int) -> "Recipe":
        """From plain values by section, as in params.yaml's ``experts``."""
        return cls(
            LoraSettings(**values["lora"]), DpoSettings(**values["dpo"]),
            TrainSettings(seed=seed, **values["optim"]), WatchSettings(**values["watch"]),
        )  # fmt: skip

    @property
    def shaping(self) -> dict[str, dict[str, object]]:
        """Every setting that the trained weights depend on, by section."""
        values = asdict(self)
        del values["watch"]["dvclive"]
        return values | {"optim": without_housekeeping(values["optim"])}


@training_must_fit("experts")
def train_lora(
    unet, pairs: Mapping[str, LatentPairs], schedule: NoiseSchedule, recipe: Recipe,
    checkpoints: Path, live: Path | None = None, processes: Processes = ALONE,
) -> tuple[Lora, list[dict[str, float]]]:  # fmt: skip
    """Train a LoRA on cached pairs by category; returns it and the history of step metrics.

    With a null space the LoRA is trained behind its projection, which ends up inside ``down``.
    The null space and the training see the pairs that are not held out only; the same are held out
    of a category whether it is trained on alone or with others. ``live`` is DVCLive's folder.

    Raises:
        InputError: there are no pairs, most prefer the wrong side, the latents do not fit the UNet,
            the batch has fewer rows than there are processes, ``lora.targets`` match no layer or
            one that is not linear, a category has too few pairs to hold out or to find a null
            space, or training does not fit into memory.
        FloatingPointError: see ``pipeline.training.loop.train``.
    """
    for category, latents in pairs.items():
        check_latents(unet, latents, category)
    identity = [TRAINING_VERSION, {c: p.digest() for c, p in pairs.items()}, recipe.shaping]
    lora, optim, dpo = recipe.lora, recipe.optim, recipe.dpo
    check_batch(optim.batch, processes, "experts")
    together = optim.at_once(processes.count)
    split = {c: hold_out(p, recipe.watch.held_out) for c, p in pairs.items()}
    parameters = attach_lora(
        unet, lora.rank, lora.targets, optim.seed, lora.alpha, lora.dora, lora.rslora
    )
    if lora.row_share < 1:
        train_only_rows(parameters, lora.row_share, seed_for(optim.seed, *pairs))
    kept = {category: some for category, (some, _) in split.items()}
    projections = _null_space(
        unet, list(extract_lora(parameters)), kept, schedule, recipe, 2 * together
    )  # fmt: skip
    if optim.precision == "bf16":
        round_frozen(unet)
    unet.train()
    if optim.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    look = {"at_once": together, "base_seed": optim.seed, "precision": optim.precision,
            "compiled": optim.compile, "processes": processes}  # fmt: skip
    step = PreferenceStep(unet, join_latents(list(kept.values())), schedule, dpo, **look)
    evaluate = None
    if recipe.watch.held_out:
        held_out = join_latents([some for _, some in split.values()])
        fixed = replace(dpo, fixed_draws=recipe.watch.draws, prompt_dropout=0.0,
                        margin_weights=False)  # fmt: skip
        evaluate = PreferenceStep(unet, held_out, schedule, fixed, **look).measure
    with (
        inputs_through(unet, projections),
        live_metrics(live if processes.main else None) as observe,
    ):  # fmt: skip
        step.rehearse(optim.batch)
        history = train(
            parameters, step.rows, step, optim, checkpoints, identity, evaluate, observe=observe,
            processes=processes, name_row=step.name_row,
        )  # fmt: skip
    unet.eval()
    trained = extract_lora(parameters, lora_scale(lora.rank, lora.alpha, lora.rslora))
    return project_inputs(trained, projections) if projections else trained, history


def _null_space(
    unet, layers: Sequence[str], pairs: Mapping[str, LatentPairs], schedule: NoiseSchedule,
    recipe: Recipe, batch: int,
) -> dict[str, Tensor]:  # fmt: skip
    """The projections that the recipe asks for, by layer; none without a damping.

    ``batch`` latents are denoised together.
    """
    lora = recipe.lora
    if lora.null_damping is None:
        return {}
    calibration = Calibration(
        unet, pairs, schedule, lora.null_prompts, lora.null_timesteps, recipe.optim.seed,
        "null space", "experts.lora.null_prompts", batch,
    )  # fmt: skip
    return null_projections(calibration.moments(layers, "chosen"), lora.null_damping)


@dataclass(frozen=True)
class Outputs:
    """Where a finished training run is written, and what it leaves behind while it runs."""

    lora: Path  # folder
    metrics: Path
    steps: Path
    checkpoints: Path  # folder, gone when the run is finished
    live: Path  # folder of DVCLive's


def train_and_save(
    source: ModelSource, pairs: Mapping[str, LatentPairs], recipe: Recipe, out: Outputs
) -> None:
    """Train a LoRA of a model on cached pairs by category; write it, a summary, step metrics.

    Under ``accelerate launch`` the processes train together, and the main one writes.

    Raises InputError when the latents were made with another base model.
    """
    processes, base_revision = join_processes(), source.identity
    check_base(pairs, base_revision)
    with unet_must_fit():
        unet = load_unet(source)
    trained, history = train_lora(
        unet, pairs, load_noise_schedule(source), recipe, out.checkpoints,
        out.live if recipe.watch.dvclive else None, processes,
    )  # fmt: skip
    if processes.main:
        kept = kept_entry(history, recipe.optim)
        held_out = recipe.watch.held_out * len(pairs)
        summary = {"pairs": sum(map(len, pairs.values())) - held_out, "held_out": held_out,
                   "steps": kept["step"]}  # fmt: skip
        summary |= {name: round(kept[name], 5) for name in SUMMARY if name in kept}
        save_lora(out.lora, trained, {
            "categories": list(pairs), "base_model": source.path, "base_revision": base_revision,
            "recipe": recipe.shaping, "recipe_hash": content_id(recipe.shaping),
            "data": {c: p.digest()[:ID_LENGTH] for c, p in pairs.items()}, "metrics": summary,
        })  # fmt: skip
        write_csv(out.steps, history)
        write_json(out.metrics, summary)
        shutil.rmtree(out.checkpoints, ignore_errors=True)
    processes.part()
