"""The state of an unfinished training run on disk, so that a killed run goes on where it was."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.storage import atomic_path

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """What a checkpoint holds besides weights and optimizer moments."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per log_every steps
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the lowest eval/loss so far


class Checkpoints:
    """The newest ``keep`` checkpoints of a run in a folder of its own, one file a step.

    ``run_id`` identifies data, settings and model: checkpoints of another run are ignored.
    """

    def __init__(self, folder: Path, run_id: str, keep: int = 1) -> None:
        self._folder, self._run_id, self._keep = folder, run_id, keep

    def save(
        self, state: TrainState, parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:  # fmt: skip
        """Write a checkpoint atomically, then remove those that are too old, or of later steps.

        Later steps are of another run, or damaged: this one would have gone on from them.
        """
        tensors = {f"{name}|best": value for name, value in state.best.items()}
        for name, parameter in parameters.items():
            tensors[f"{name}|weight"] = parameter.detach().contiguous()
            for key, value in optimizer.state[parameter].items():
                tensors[f"{name}|{key}"] = value.contiguous()
        told = {"step": state.step, "history": state.history}
        header = {"run_id": self._run_id, "state": json.dumps(told)}
        newest = self._folder / f"step-{state.step:08d}.safetensors"
        with atomic_path(newest) as temporary:
            save_file(tensors, temporary, metadata=header)
        files = self._files()
        at = files.index(newest)
        for path in files[:at] + files[at + self._keep :]:
            path.unlink()

    def load(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> TrainState:
        """Restore the newest checkpoint of this very run; a fresh state when there is none.

        A damaged file is passed over, with a warning, for the one before it.
        """
        for path in self._files():
            try:
                with safe_open(path, "pt") as file:
                    header = file.metadata() or {}
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                log.warning("passing over the damaged checkpoint %s (%s)", path, error)
                continue
            if header.get("run_id") != self._run_id:
                log.info("ignoring %s: it belongs to other data or settings", path)
                continue
            state = TrainState(**json.loads(header["state"]))
            for joined, value in tensors.items():
                name, _, key = joined.rpartition("|")
                parameter = parameters[name]
                if key == "weight":
                    parameter.data.copy_(value)
                elif key == "best":
                    state.best[name] = value.to(parameter.device)
                else:  # the optimizer's moments and step count, where fused AdamW has them
                    optimizer.state[parameter][key] = value.to(parameter.device)
            log.info("resuming %s at step %d", path, state.step)
            return state
        return TrainState()

    def _files(self) -> list[Path]:
        """The folder's checkpoints, newest first."""
        return sorted(self._folder.glob("step-*.safetensors"), reverse=True)
