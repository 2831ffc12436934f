"""Diffusion-DPO training of a LoRA on cached pairs: one category's expert, or all jointly."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from pipeline.calibration import Calibration, benign_moments
from pipeline.diffusion import load_alphas_cumprod, load_unet, model_revision
from pipeline.errors import InputError
from pipeline.latents import LatentPairs, join_latents
from pipeline.lora import (
    Lora,
    attach_lora,
    extract_lora,
    inputs_through,
    save_lora,
    train_only_rows,
)
from pipeline.nullspace import null_projections, project_inputs
from pipeline.preference import (
    DpoSettings,
    NoiseSchedule,
    PreferenceStep,
    hold_out,
)
from pipeline.seeds import seed_for
from pipeline.storage import write_csv, write_json
from pipeline.train import TrainSettings, train

SUMMARY = ("loss", "rewards/accuracies", "rewards/margins", "error/chosen_over_reference",
           "error/rejected_over_reference", "eval/loss", "eval/rewards/accuracies",
           "eval/rewards/margins")  # fmt: skip
TRAINING_VERSION = 3  # raise it when a change of code changes training: checkpoints hash it


@dataclass(frozen=True)
class LoraSettings:
    """The trained adapter; see ``pipeline.nullspace`` for the last three."""

    rank: int
    targets: Sequence[str]
    alpha: float | None = None  # the delta counts alpha / rank times; None: alpha is rank
    row_share: float = 1.0  # of each layer's output rows; which ones is drawn by category
    null_damping: float | None = None  # None trains without a null space
    null_prompts: int = 0  # per category: safe prompts, and as many benign ones
    null_timesteps: Sequence[int] = ()


@dataclass(frozen=True)
class WatchSettings:
    """What is measured on pairs that are held out of training, at fixed draws."""

    held_out: int = 0  # pairs per category
    draws: int = 4  # fixed draws per held-out row


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


def train_lora(
    unet, pairs: Mapping[str, LatentPairs], schedule: NoiseSchedule, recipe: Recipe,
    checkpoint: Path,
) -> tuple[Lora, list[dict[str, float]]]:  # fmt: skip
    """Train a LoRA on cached pairs by category; returns it and the history of step metrics.

    With a null space the LoRA is trained behind its projection, which ends up inside ``down``.
    The null space and the training see the pairs that are not held out only; the same are held out
    of a category whether it is trained on alone or with others.

    Raises InputError when there are no pairs, most prefer the wrong side, or the latents do not fit
    the UNet.
    """
    for category, latents in pairs.items():
        _check_latents(unet, latents, category)
    identity = [TRAINING_VERSION, {c: p.digest() for c, p in pairs.items()}, asdict(recipe)]
    lora, optim, dpo = recipe.lora, recipe.optim, recipe.dpo
    split = {c: hold_out(p, recipe.watch.held_out) for c, p in pairs.items()}
    parameters = attach_lora(unet, lora.rank, lora.targets, optim.seed, lora.alpha)
    if lora.row_share < 1:
        train_only_rows(parameters, lora.row_share, seed_for(optim.seed, *pairs))
    layers = list(extract_lora(parameters))
    kept = {category: some for category, (some, _) in split.items()}
    projections = _null_space(unet, layers, kept, schedule, recipe)
    unet.train()
    if optim.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    look = {"batch": optim.batch, "base_seed": optim.seed, "precision": optim.precision}
    step = PreferenceStep(unet, join_latents(list(kept.values())), schedule, dpo, **look)
    evaluate = None
    if recipe.watch.held_out:
        held_out = join_latents([some for _, some in split.values()])
        fixed = replace(dpo, fixed_draws=recipe.watch.draws, prompt_dropout=0.0,
                        margin_weights=False)  # fmt: skip
        evaluate = PreferenceStep(unet, held_out, schedule, fixed, **look).measure
    with inputs_through(unet, projections):
        history = train(parameters, step.rows, step, optim, checkpoint, identity, evaluate)
    unet.eval()
    trained = extract_lora(parameters, 1.0 if lora.alpha is None else lora.alpha / lora.rank)
    return project_inputs(trained, projections) if projections else trained, history


def _check_latents(unet, latents: LatentPairs, category: str) -> None:
    if not len(latents):
        raise InputError(
            f"{category} has no pairs to train on; run `dvc repro build_pairs` and see its metrics"
        )
    if (latents.margin < 0).float().mean() > 0.5:
        raise InputError(
            f"the judge finds most chosen images of {category} worse than the "
            "rejected ones: the preference is reversed; run `dvc repro build_pairs`"
        )
    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    if latents.chosen_mean.shape[1] != channels or latents.prompt_embeds.shape[2] != width:
        raise InputError(
            f"latents have {latents.chosen_mean.shape[1]} channels and text width "
            f"{latents.prompt_embeds.shape[2]}, the UNet of base_model.path {channels} and {width}"
        )


def _null_space(
    unet, layers: Sequence[str], pairs: Mapping[str, LatentPairs], schedule: NoiseSchedule,
    recipe: Recipe,
) -> dict[str, Tensor]:  # fmt: skip
    """The projections that the recipe asks for, by layer; none without a damping."""
    lora = recipe.lora
    if lora.null_damping is None:
        return {}
    calibration = Calibration(
        unet, pairs, schedule.alphas_cumprod, lora.null_prompts, lora.null_timesteps,
        recipe.optim.seed, "null space", "experts.lora.null_prompts",
    )  # fmt: skip
    return null_projections(benign_moments(layers, calibration), lora.null_damping)


@dataclass(frozen=True)
class Outputs:
    """Where a finished training run is written."""

    lora: Path  # folder
    metrics: Path
    steps: Path
    checkpoint: Path


def train_and_save(
    model: str, revision: str | None, pairs: Mapping[str, LatentPairs], recipe: Recipe, out: Outputs
) -> None:  # fmt: skip
    """Train a LoRA of ``model`` on cached pairs by category; write it, a summary, step metrics.

    Raises InputError when the latents were made with another base model.
    """
    base_revision = model_revision(model, revision)
    for category, latents in pairs.items():
        if latents.base_revision != base_revision:
            raise InputError(
                f"the latents of {category} come from base model {latents.base_revision}, "
                f"base_model.path is {base_revision}; run `dvc repro cache_latents`"
            )
    schedule = NoiseSchedule(*load_alphas_cumprod(model, revision))
    trained, history = train_lora(
        load_unet(model, revision), pairs, schedule, recipe, out.checkpoint
    )
    last = history[-1]
    held_out = recipe.watch.held_out * len(pairs)
    summary = {"pairs": sum(map(len, pairs.values())) - held_out, "held_out": held_out,
               "steps": last["step"]}  # fmt: skip
    summary |= {name: round(last[name], 5) for name in SUMMARY if name in last}
    save_lora(out.lora, trained, {
        "categories": list(pairs), "base_model": model, "base_revision": base_revision,
        "recipe": asdict(recipe), "metrics": summary,
    })  # fmt: skip
    write_csv(out.steps, history)
    write_json(out.metrics, summary)
    out.checkpoint.unlink(missing_ok=True)
