"""Stages as processes of their own, forked from a server that has imported the libraries once.

They can be killed and started several at a time as any process can, without five to ten seconds of
imports for each.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["torch", "torch.distributed", "torch._dynamo", "diffusers.models.unets.unet_2d_condition",
     "diffusers.loaders.lora_base", "accelerate", "peft", "open_clip", "nudenet", "pyarrow.dataset",
     "pipeline.training.experts", "pipeline.scoring.panel", "pipeline.storage"]
)  # fmt: skip
PATIENCE = 240  # seconds


class Started:
    """``python -m stages.<name> <arguments>`` in a folder, with one thread."""

    def __init__(self, folder: Path, name: str, *arguments: str, **environment: str):
        self._log = folder / f"{name}-{environment.get('RANK', 0)}.log"
        command = [f"stages.{name}", *arguments]
        self.process = _SERVER.Process(
            target=_run, args=(folder, command, environment, self._log), daemon=True
        )
        self.process.start()

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def kill(self) -> None:
        """SIGKILL; it must not have ended before."""
        self.process.kill()
        self.process.join(PATIENCE)
        assert self.process.exitcode == -9

    def end(self) -> tuple[int, str]:
        """Its exit status and what it wrote on stderr, once it has ended."""
        self.process.join(PATIENCE)
        return self.process.exitcode, self._log.read_text()


def start_together(folder: Path, count: int, name: str, *arguments: str) -> list[Started]:
    """Several as one run, with the variables that ``accelerate launch`` and ``torchrun`` set."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count),
           "LOCAL_WORLD_SIZE": str(count)}  # fmt: skip
    return [
        Started(folder, name, *arguments, **run, RANK=str(k), LOCAL_RANK=str(k))
        for k in range(count)
    ]


def _run(folder: Path, command: list[str], environment: dict[str, str], log: Path) -> None:
    import torch

    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ |= environment | {"CUDA_VISIBLE_DEVICES": ""}
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
