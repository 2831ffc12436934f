"""One training loop for everything that is trained with a preference loss.

Every random number of a step derives from the run's seed and the step's number, so the state that
a resumed run needs is the step, the weights and the optimizer's moments: bit for bit the same
final weights, however often the run was killed.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.progress import progress_bar
from pipeline.seeds import content_id, seed_for
from pipeline.storage import atomic_path

log = logging.getLogger(__name__)
WATCHED = "error/chosen_over_reference"  # what the divergence guard looks at
# (rows of the batch, generator of the step) -> losses (batch,), metrics by name (batch,)
TrainingStep = Callable[[Tensor, torch.Generator], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast to train; learning rate warms up linearly, then stays."""

    learning_rate: float
    warmup_steps: int
    batch: int
    max_steps: int
    weight_decay: float
    max_grad_norm: float
    seed: int
    checkpoint_every: int
    log_every: int
    patience: int | None = None  # logs without a lower eval/loss before stopping; None: never stop
    max_chosen_error: float | None = None  # divergence guard on WATCHED; None: no guard
    precision: str = "fp32"  # or "bf16": of the model's arithmetic; trained weights stay fp32
    gradient_checkpointing: bool = False  # less memory for a second forward


@dataclass
class TrainState:
    """What a checkpoint holds besides weights and optimizer moments."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per log_every steps

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether none of the last ``patience`` logs has a lower eval/loss than all before them."""
        losses = [entry["eval/loss"] for entry in self.history if "eval/loss" in entry]
        if patience is None or len(losses) <= patience:
            return False
        return min(losses[-patience:]) >= min(losses[:-patience])


def train(
    parameters: Mapping[str, torch.nn.Parameter], rows: int, training_step: TrainingStep,
    settings: TrainSettings, checkpoint: Path, identity: object,
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Minimise the mean of ``training_step``'s losses with AdamW; returns the logged metrics.

    Args:
        parameters: what is trained, by name.
        rows: size of the data set; each epoch visits every row once in an order of its own.
        checkpoint: file of the run; the caller deletes it once the result is written.
        identity: JSON-able description of data and model; a checkpoint of another is ignored.
        evaluate: measures held-out data at every log; its names get the prefix ``eval/``.

    Raises:
        FloatingPointError: a loss is not finite, with the step and rows; or the mean chosen error
            of a log exceeds the reference's by more than ``max_chosen_error`` of it, with advice.

    A run out of patience ends with the weights of its last step, not of its best.
    """
    run_id = content_id(identity, asdict(settings), {n: list(p.shape) for n, p in
                                                     parameters.items()})  # fmt: skip
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    state = _load_checkpoint(checkpoint, run_id, parameters, optimizer)
    progress = progress_bar(
        settings.max_steps * settings.batch, "train", "pair", state.step * settings.batch
    )
    recent: list[dict[str, float]] = []
    while state.step < settings.max_steps and not state.out_of_patience(settings.patience):
        batch_rows = rows_of_step(rows, settings.batch, state.step, settings.seed)
        generator = torch.Generator().manual_seed(seed_for(settings.seed, "step", state.step))
        losses, metrics = training_step(batch_rows, generator)
        if not losses.isfinite().all():
            raise FloatingPointError(
                f"loss is {losses.detach().tolist()} at step {state.step}, rows "
                f"{batch_rows.tolist()}; lower experts.optim.learning_rate or "
                "experts.dpo.beta"
            )
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), settings.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * warmup(state.step, settings.warmup_steps)
        optimizer.step()
        state.step += 1
        recent.append({"loss": losses.mean().item()} | {k: v.mean().item() for k, v in
                                                        metrics.items()})  # fmt: skip
        progress.update(settings.batch)
        if state.step % settings.log_every == 0 or state.step == settings.max_steps:
            means = {k: math.fsum(r[k] for r in recent) / len(recent) for k in recent[0]}
            means |= over_reference(means)
            _check_divergence(means, state.step, settings.max_chosen_error)
            measured = {f"eval/{k}": v for k, v in evaluate().items()} if evaluate else {}
            if not all(map(math.isfinite, measured.values())):
                raise FloatingPointError(f"held-out measures are not finite at step {state.step}")
            state.history.append({"step": state.step} | means | measured)
            progress.set_postfix(loss=f"{means['loss']:.3f}", refresh=False)
            recent = []
            if state.step % settings.checkpoint_every == 0 or state.step == settings.max_steps:
                _save_checkpoint(checkpoint, run_id, state, parameters, optimizer)
    progress.close()
    if state.step < settings.max_steps:
        log.info("stopped at step %d: eval/loss has not fallen for %d logs", state.step,
                 settings.patience)  # fmt: skip
    return state.history


def over_reference(means: Mapping[str, float]) -> dict[str, float]:
    """For mean errors ``x`` and ``x_reference``: by how much of the latter the first exceeds it."""
    pairs = {k: f"{k}_reference" for k in means if f"{k}_reference" in means}
    return {f"{k}_over_reference": means[k] / means[r] - 1 for k, r in pairs.items()}


def _check_divergence(means: Mapping[str, float], step: int, bound: float | None) -> None:
    if bound is not None and means.get(WATCHED, 0.0) > bound:
        raise FloatingPointError(
            f"training diverges: at step {step} the chosen side's error is "
            f"{means[WATCHED]:.0%} above the base model's, experts.optim.max_chosen_error allows "
            f"{bound:.0%}; lower experts.optim.learning_rate or experts.dpo.beta, or raise "
            "experts.dpo.mu"
        )


def warmup(step: int, warmup_steps: int) -> float:
    """The learning rate's factor: linear up to 1 over ``warmup_steps``, then 1."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def rows_of_step(rows: int, batch: int, step: int, seed: int) -> Tensor:
    """The rows of a step: consecutive slices of one shuffled order per epoch, (batch,) int64."""
    positions = range(step * batch, (step + 1) * batch)
    orders = {
        epoch: torch.randperm(
            rows, generator=torch.Generator().manual_seed(seed_for(seed, "epoch", epoch))
        )
        for epoch in {p // rows for p in positions}
    }
    return torch.stack([orders[p // rows][p % rows] for p in positions])


def _save_checkpoint(path, run_id, state: TrainState, parameters, optimizer) -> None:
    tensors = {}
    for name, parameter in parameters.items():
        moments = optimizer.state[parameter]
        tensors[f"{name}|weight"] = parameter.detach().contiguous()
        for key in ("exp_avg", "exp_avg_sq", "step"):
            tensors[f"{name}|{key}"] = moments[key].contiguous()
    header = {"run_id": run_id, "state": json.dumps(asdict(state))}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def _load_checkpoint(path, run_id, parameters, optimizer) -> TrainState:
    """The state to go on from; a fresh one when there is no checkpoint of this very run."""
    if not path.exists():
        return TrainState()
    with safe_open(path, "pt") as file:
        header = file.metadata()
        if header["run_id"] != run_id:
            log.info("ignoring %s: it belongs to other data or settings", path)
            return TrainState()
        for name, parameter in parameters.items():
            parameter.data.copy_(file.get_tensor(f"{name}|weight"))
            moments = {key: file.get_tensor(f"{name}|{key}") for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments.items()}
            optimizer.state[parameter]["step"] = file.get_tensor(f"{name}|step")  # stays on the CPU
        state = TrainState(**json.loads(header["state"]))
    log.info("resuming %s at step %d", path, state.step)
    return state
