"""Diffusion-DPO training of a LoRA on cached pairs: one category's expert, or all jointly."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.calibration import Calibration, benign_moments
from pipeline.diffusion import load_alphas_cumprod, load_unet, model_revision
from pipeline.dpo import (
    Errors,
    diffusion_dpo_loss,
    scale_gradient,
    squared_error,
    winner_preserving_scale,
)
from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.lora import (
    Lora,
    adapter_off,
    attach_lora,
    extract_lora,
    inputs_through,
    save_lora,
    train_only_rows,
)
from pipeline.nullspace import null_projections, project_inputs
from pipeline.seeds import seed_for
from pipeline.storage import write_csv, write_json
from pipeline.train import TrainingStep, TrainSettings, train

SUMMARY = ("loss", "rewards/accuracies", "rewards/margins", "error/chosen_over_reference",
           "error/rejected_over_reference")  # fmt: skip
TRAINING_VERSION = 1  # raise it when a change of code changes training: checkpoints hash it
CAPTIONS = {"unsafe": ("rejected",), "safe": ("chosen",), "both": ("rejected", "chosen")}


@dataclass(frozen=True)
class DpoSettings:
    """The preference objective; see ``pipeline.dpo`` for beta and mu."""

    beta: float
    mu: float | None  # None trains without the winner-preserving safeguard
    captions: str  # "unsafe", "safe" or "both": which prompts condition a pair
    prompt_dropout: float  # share of rows conditioned on the empty prompt
    retention: float = 0.0  # weight of staying like the base model on chosen image and safe prompt


@dataclass(frozen=True)
class LoraSettings:
    """The trained adapter; see ``pipeline.nullspace`` for the last three."""

    rank: int
    targets: Sequence[str]
    row_share: float = 1.0  # of each layer's output rows; which ones is drawn by category
    null_damping: float | None = None  # None trains without a null space
    null_prompts: int = 0  # per category: safe prompts, and as many benign ones
    null_timesteps: Sequence[int] = ()


def caption_rows(latents: LatentPairs, captions: str) -> tuple[Tensor, Tensor]:
    """Training rows as (pair index, prompt index), each (rows,); "both" makes two rows a pair."""
    sides = [getattr(latents, f"{side}_prompt") for side in CAPTIONS[captions]]
    return torch.arange(len(latents)).repeat(len(sides)), torch.cat(sides)


def noise_target(
    latents: Tensor, noise: Tensor, signal: Tensor, prediction_type: str
) -> Tensor:  # fmt: skip
    """What the UNet is trained to predict; ``signal`` is alphas_cumprod[t], (batch, 1, 1, 1)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents
    raise InputError(f"the scheduler's prediction_type {prediction_type!r} is not supported")


def dpo_step(
    unet, latents: LatentPairs, alphas_cumprod: Tensor, prediction_type: str, settings: DpoSettings
) -> TrainingStep:  # fmt: skip
    """The training step on a UNet that carries a LoRA.

    Both sides of a pair share noise, timestep and posterior draw; policy and reference see the
    same batch, chosen rows first, in one forward each. With ``retention`` [ours] the chosen image
    under its own safe prompt comes as a third row, on which the squared difference of the policy's
    prediction from the reference's is added to the loss: what is safe stays as it was.
    """
    pair_of, prompt_of = caption_rows(latents, settings.captions)

    def step(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        pairs, prompts, n = pair_of[rows], prompt_of[rows].clone(), len(rows)
        shape = latents.chosen_mean[pairs].shape
        draw = torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        timesteps = torch.randint(len(alphas_cumprod), (n,), generator=generator)
        dropped = torch.rand(n, generator=generator) < settings.prompt_dropout
        prompts[dropped] = 0  # row 0 is the empty prompt
        chosen = latents.chosen_mean[pairs] + latents.chosen_std[pairs] * draw
        rejected = latents.rejected_mean[pairs] + latents.rejected_std[pairs] * draw
        clean, captions = [chosen, rejected], [prompts, prompts]
        if settings.retention:
            clean, captions = [*clean, chosen], [*captions, latents.chosen_prompt[pairs]]
        clean, sides = torch.cat(clean), len(clean)
        noise, timesteps = noise.repeat(sides, 1, 1, 1), timesteps.repeat(sides)
        signal = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        target = noise_target(clean, noise, signal, prediction_type)
        embeds = latents.prompt_embeds[torch.cat(captions)]
        noisy, target, timesteps, embeds = (
            x.to(unet.device) for x in (noisy, target, timesteps, embeds)
        )
        with torch.no_grad(), adapter_off(unet):
            reference = unet(noisy, timesteps, embeds).sample
        policy = unet(noisy, timesteps, embeds).sample
        losses, metrics = _preference_loss(
            policy[: 2 * n], reference[: 2 * n], target[: 2 * n], settings
        )
        if settings.retention:
            drift = squared_error(policy[2 * n :], reference[2 * n :])
            losses = losses + settings.retention * drift
            metrics["error/retention"] = drift.detach()
        return losses, metrics

    return step


def _preference_loss(
    policy: Tensor, reference: Tensor, target: Tensor, settings: DpoSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The DPO loss of predictions (2 batch, c, h, w) whose first half is the chosen side."""
    policy_error, reference_error = squared_error(policy, target), squared_error(reference, target)
    (chosen, rejected), references = policy_error.chunk(2), reference_error.chunk(2)
    if settings.mu is not None:
        residuals = (policy - target).chunk(2)
        rejected = scale_gradient(rejected, winner_preserving_scale(*residuals, settings.mu))
    return diffusion_dpo_loss(Errors(chosen, rejected), Errors(*references), settings.beta)


def train_lora(
    unet, latents: LatentPairs, categories: Sequence[str], alphas_cumprod: Tensor,
    prediction_type: str, *, lora: LoraSettings, dpo: DpoSettings, settings: TrainSettings,
    checkpoint: Path,
) -> tuple[Lora, list[dict[str, float]]]:  # fmt: skip
    """Train a LoRA on cached pairs; returns it and the history of step metrics.

    With a null space the LoRA is trained behind its projection, which ends up inside ``down``.
    Raises InputError when there are no pairs or the latents do not fit the UNet.
    """
    if not len(latents):
        raise InputError("no pairs to train on; run `dvc repro build_pairs` and see its metrics")
    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    if latents.chosen_mean.shape[1] != channels or latents.prompt_embeds.shape[2] != width:
        raise InputError(
            f"latents have {latents.chosen_mean.shape[1]} channels and text width "
            f"{latents.prompt_embeds.shape[2]}, the UNet of base_model.path {channels} and {width}"
        )
    parameters = attach_lora(unet, lora.rank, lora.targets, settings.seed)
    if lora.row_share < 1:
        train_only_rows(parameters, lora.row_share, seed_for(settings.seed, *categories))
    projections = {}
    if lora.null_damping is not None:
        calibration = Calibration(
            unet, {", ".join(categories): latents}, alphas_cumprod,
            lora.null_prompts * len(categories), lora.null_timesteps, settings.seed,
            "null space", f"experts.lora.null_prompts ({lora.null_prompts} per category)",
        )  # fmt: skip
        moments = benign_moments(list(extract_lora(parameters)), calibration)
        projections = null_projections(moments, lora.null_damping)
    unet.train()
    step = dpo_step(unet, latents, alphas_cumprod, prediction_type, dpo)
    rows = len(caption_rows(latents, dpo.captions)[0])
    identity = [TRAINING_VERSION, latents.digest(), list(categories), asdict(lora), asdict(dpo)]
    with inputs_through(unet, projections):
        history = train(parameters, rows, step, settings, checkpoint, identity)
    unet.eval()
    trained = extract_lora(parameters)
    return project_inputs(trained, projections) if projections else trained, history


@dataclass(frozen=True)
class Outputs:
    """Where a finished training run is written."""

    lora: Path  # folder
    metrics: Path
    steps: Path
    checkpoint: Path


def train_and_save(
    model: str, revision: str | None, latents: LatentPairs, categories: Sequence[str], *,
    lora: LoraSettings, dpo: DpoSettings, settings: TrainSettings, out: Outputs,
) -> None:  # fmt: skip
    """Train a LoRA of ``model`` on cached pairs; write it, its summary and its step metrics.

    Raises InputError when the latents were made with another base model.
    """
    base_revision = model_revision(model, revision)
    if latents.base_revision != base_revision:
        raise InputError(
            f"the latents of {', '.join(categories)} come from base model {latents.base_revision}, "
            f"base_model.path is {base_revision}; run `dvc repro cache_latents`"
        )
    trained, history = train_lora(
        load_unet(model, revision), latents, categories, *load_alphas_cumprod(model, revision),
        lora=lora, dpo=dpo, settings=settings, checkpoint=out.checkpoint,
    )  # fmt: skip
    last = {name: round(history[-1][name], 5) for name in SUMMARY}
    summary = {"pairs": len(latents), "steps": settings.max_steps} | last
    save_lora(out.lora, trained, {
        "categories": list(categories), "base_model": model, "base_revision": base_revision,
        "lora": asdict(lora), "dpo": asdict(dpo), "train": asdict(settings), "metrics": summary,
    })  # fmt: skip
    write_csv(out.steps, history)
    write_json(out.metrics, summary)
    out.checkpoint.unlink(missing_ok=True)
