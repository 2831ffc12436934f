"""One training loop for everything that is trained with a preference loss.

Every random number of a step derives from the run's seed and the step's number, so the state that
a resumed run needs is the step, the weights and the optimizer's moments: on a CPU bit for bit the
same final weights, however often the run was killed.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.progress import progress_bar
from pipeline.seeds import content_id, seed_for
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.processes import ALONE, Processes

log = logging.getLogger(__name__)
LOWER = "lower optim.learning_rate or dpo.beta in its section of params.yaml"
WATCHED = "error/chosen_over_reference"  # what the divergence guard looks at
# (rows of the batch, generator of the step) -> losses, metrics by name, part after part of this
# process's share of the rows (with one process all of them); each part is done with, gradients and
# all, before the next is asked for
TrainingStep = Callable[[Tensor, torch.Generator], Iterable[tuple[Tensor, dict[str, Tensor]]]]


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast to train; the learning rate warms up, stays, and may fall again."""

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
    compile: bool = False  # torch.compile for policy and reference: minutes at the start
    checkpoints: int = 1  # how many are kept while training
    decay_steps: int = 0  # the last ones, over which the learning rate falls to 0
    micro_batch: int | None = None  # rows that a process looks at together; None: its whole share

    def at_once(self, processes: int) -> int:
        """How many rows a process has in memory together, at most."""
        share = -(-self.batch // processes)
        return min(self.micro_batch or share, share)


def train(
    parameters: Mapping[str, torch.nn.Parameter], rows: int, training_step: TrainingStep,
    settings: TrainSettings, checkpoints: Path, identity: object,
    evaluate: Callable[[], dict[str, float]] | None = None, *,
    observe: Callable[[Mapping[str, float]], None] = lambda entry: None,
    processes: Processes = ALONE, name_row: Callable[[int], str] = "row {}".format,
) -> list[dict[str, float]]:  # fmt: skip
    """Minimise the mean of ``training_step``'s losses with AdamW; returns the logged metrics.

    Args:
        parameters: what is trained, by name; every process starts with the same values.
        rows: size of the data set; each epoch visits every row once in an order of its own.
        checkpoints: folder of the run; the caller deletes it once the result is written.
        identity: JSON-able description of data and model; a checkpoint of another is ignored.
        evaluate: measures held-out data at every log; its names get the prefix ``eval/``.
        observe: is told every logged entry; those from before a resume come first.
        processes: those that share the batches; only the main one writes checkpoints.
        name_row: what a row is called in an error.

    Raises:
        FloatingPointError: a loss is not finite, with the step and its rows, or its gradient is
            not; or the mean chosen error of a log exceeds the reference's by more than
            ``max_chosen_error`` of it, with advice.
        InputError: the processes have found different checkpoints.

    With ``patience`` the parameters end as they were at the lowest eval/loss; ``kept_entry`` is the
    log entry of those that a history ends with.
    """
    shapes = {name: list(p.shape) for name, p in parameters.items()}
    run_id = content_id(identity, without_housekeeping(asdict(settings)), shapes)
    optimizer = _optimizer(parameters, settings)
    saved = Checkpoints(checkpoints, run_id, settings.checkpoints)
    state = saved.load(parameters, optimizer)
    _agree(state.step, parameters, processes)
    for entry in state.history:
        observe(entry)
    progress = progress_bar(
        settings.max_steps * settings.batch, "train", "pair", state.step * settings.batch
    )
    recent: list[dict[str, float]] = []
    while state.step < settings.max_steps and not _out_of_patience(state.history, settings):
        batch_rows = rows_of_step(rows, settings.batch, state.step, settings.seed)
        generator = torch.Generator().manual_seed(seed_for(settings.seed, "step", state.step))
        optimizer.zero_grad()
        losses, means = _backward(training_step(batch_rows, generator), settings.batch, processes)
        if not math.isfinite(means["loss"]):
            mine = processes.share(batch_rows)[~losses.isfinite().cpu()]
            of = ", ".join(map(name_row, mine.tolist())) or "rows of another process"
            raise FloatingPointError(
                f"loss is {means['loss']} at step {state.step}, of {of}; {LOWER}"
            )
        _update(optimizer, list(parameters.values()), settings, state.step, processes)
        state.step += 1
        recent.append(means)
        progress.update(settings.batch)
        if state.step % settings.log_every == 0 or state.step == settings.max_steps:
            entry = _measure(recent, state.step, settings, evaluate)
            state.history.append(entry)
            observe(entry)
            if settings.patience and kept_entry(state.history, settings) is entry:
                state.best = {name: p.detach().clone() for name, p in parameters.items()}
            progress.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
            recent = []
            ended = state.step == settings.max_steps or _out_of_patience(state.history, settings)
            if processes.main and (ended or state.step % settings.checkpoint_every == 0):
                saved.save(state, parameters, optimizer)
    progress.close()
    for name, value in state.best.items():
        parameters[name].data.copy_(value)
    if state.step < settings.max_steps:
        log.info("stopped at step %d: eval/loss has not fallen for %d logs", state.step,
                 settings.patience)  # fmt: skip
    return state.history


def _backward(
    parts: Iterable[tuple[Tensor, dict[str, Tensor]]], batch: int, processes: Processes
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """Gradients of a batch's mean loss, part after part.

    Returns this process's losses, (its share,), and the whole batch's mean loss and metrics.
    """
    sums: Tensor | float = 0.0
    found = []
    for losses, metrics in parts:
        (losses.sum() / batch).backward()
        found.append(losses.detach())
        named = {"loss": found[-1]} | metrics
        sums = sums + torch.stack([value.double().sum() for value in named.values()])
    means = dict(zip(named, (processes.sum(sums) / batch).tolist(), strict=True))
    return torch.cat(found), means


def _update(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter],
    settings: TrainSettings, step: int, processes: Processes,
) -> None:  # fmt: skip
    """One optimizer step on the gradients of all processes."""
    _sum_gradients(parameters, processes)
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
    if not norm.isfinite():  # nothing is learnt from it, and no weight has taken it up
        raise FloatingPointError(f"the gradient is not finite at step {step}; {LOWER}")
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * schedule(step, settings)
    optimizer.step()


def _measure(
    recent: Sequence[Mapping[str, float]], step: int, settings: TrainSettings,
    evaluate: Callable[[], dict[str, float]] | None,
) -> dict[str, float]:  # fmt: skip
    """The log entry of a step: means since the last one, and what held-out data say."""
    means = {k: math.fsum(r[k] for r in recent) / len(recent) for k in recent[0]}
    means |= over_reference(means)
    _check_divergence(means, step, settings.max_chosen_error)
    measured = {f"eval/{k}": v for k, v in evaluate().items()} if evaluate else {}
    if not all(map(math.isfinite, measured.values())):
        raise FloatingPointError(f"held-out measures are not finite at step {step}")
    return {"step": step} | means | measured


def without_housekeeping(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings without those that leave the trained weights as they are."""
    # micro_batch, like the number of processes, changes the order of additions alone: a run that
    # did not fit into memory goes on with a smaller one
    idle = {"checkpoints", "checkpoint_every", "micro_batch"}
    if not settings.get("decay_steps"):
        idle.add("decay_steps")
    return {k: v for k, v in settings.items() if k not in idle}


def _optimizer(
    parameters: Mapping[str, torch.nn.Parameter], settings: TrainSettings
) -> torch.optim.Optimizer:  # fmt: skip
    """AdamW. DoRA's magnitudes start at the base weight's size, which must not decay to zero."""
    kept = [p for name, p in parameters.items() if "lora_magnitude" in name]
    decayed = [p for name, p in parameters.items() if "lora_magnitude" not in name]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay},
              {"params": kept, "weight_decay": 0.0}]  # fmt: skip
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=settings.learning_rate, fused=True
    )


def _agree(step: int, parameters: Mapping[str, torch.nn.Parameter], processes: Processes) -> None:
    """Raise InputError unless every process goes on from the same step."""
    device = next(iter(parameters.values())).device
    total, squares = processes.sum(torch.tensor([step, step * step], device=device)).tolist()
    if total * total != squares * processes.count:  # Cauchy-Schwarz: equal where all steps are
        raise InputError(
            f"this process goes on from step {step}, others do not; all of them must see the same "
            ".checkpoints folder"
        )


def kept_entry(
    history: Sequence[Mapping[str, float]], settings: TrainSettings
) -> Mapping[str, float]:  # fmt: skip
    """The log entry of the weights that a run ends with: the best with patience, else the last."""
    if settings.patience is None:
        return history[-1]
    return min(history, key=lambda entry: entry["eval/loss"])


def _out_of_patience(history: Sequence[Mapping[str, float]], settings: TrainSettings) -> bool:
    """Whether none of the last ``patience`` logs has a lower eval/loss than all before them."""
    patience = settings.patience
    if patience is None or len(history) <= patience:
        return False
    losses = [entry["eval/loss"] for entry in history]
    return min(losses[-patience:]) >= min(losses[:-patience])


def _sum_gradients(parameters: Sequence[torch.nn.Parameter], processes: Processes) -> None:
    """Replace gradients by their sums over all processes, in one exchange."""
    if processes.count == 1:
        return
    total = processes.sum(torch.cat([p.grad.flatten() for p in parameters]))
    parts = total.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad.copy_(part.view_as(parameter))


def over_reference(means: Mapping[str, float]) -> dict[str, float]:
    """For mean errors ``x`` and ``x_reference``: by how much of the latter the first exceeds it."""
    pairs = {k: f"{k}_reference" for k in means if f"{k}_reference" in means}
    return {f"{k}_over_reference": means[k] / means[r] - 1 for k, r in pairs.items()}


def _check_divergence(means: Mapping[str, float], step: int, bound: float | None) -> None:
    if bound is not None and means.get(WATCHED, 0.0) > bound:
        raise FloatingPointError(
            f"training diverges: at step {step} the chosen side's error is "
            f"{means[WATCHED]:.0%} above the base model's, optim.max_chosen_error allows "
            f"{bound:.0%}; in its section of params.yaml lower optim.learning_rate or dpo.beta, or "
            "raise dpo.mu"
        )


def schedule(step: int, settings: TrainSettings) -> float:
    """The learning rate's factor: linear up to 1, then 1, then linear down towards 0."""
    rise = (step + 1) / settings.warmup_steps if settings.warmup_steps else 1.0
    left = settings.max_steps - step
    fall = left / settings.decay_steps if settings.decay_steps else 1.0
    return min(1.0, rise, fall)


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
