"""Runs a stage's command as DVC does, but into a log."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cluster.board import tail
from pipeline.cluster.order import Order, Place, StageFailed
from pipeline.lifetime import end_with_parent

if TYPE_CHECKING:
    from dvc.stage import PipelineStage


def execute(stage: "PipelineStage", order: Order, place: Place, log: Path, lock: int) -> None:
    """Run the stage's command as DVC does, but into a log, and never longer than this process."""
    from dvc.stage.run import prepare_kwargs

    start = prepare_kwargs(stage)
    environment = start["env"] | place.environment | _launcher(order)
    environment["OMP_NUM_THREADS"] = str(order.threads)
    if not order.sees_gpus:  # Ray leaves them in sight of tasks that ask for none
        environment["CUDA_VISIBLE_DEVICES"] = ""
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    start["env"] = {name: value for name, value in environment.items() if value is not None}
    for line in stage.cmd if isinstance(stage.cmd, list) else stage.cmd.splitlines():
        line += f" --shard {order.shard}" if order.shard else ""
        simple = not set(line) & set(";&|<>")  # then the shell can make way for it
        with log.open("ab") as stream:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {line}" if simple else line], **start, stdout=stream,
                stderr=subprocess.STDOUT, preexec_fn=end_with_parent, pass_fds=[lock],
            )  # fmt: skip
            status = process.wait()
        if status:
            raise StageFailed(
                f"ended with status {status}:\n{tail(log.read_text(errors='replace'))}"
            )


def _launcher(order: Order) -> dict[str, str]:
    """What starts a stage that trains with several processes, at a port of its own.

    ``accelerate launch`` calls the same for GPUs; without any it would start one process only.
    """
    if order.processes == 1:
        return {}
    return {"LAUNCH": f"torchrun --standalone --nproc_per_node {order.processes}"}
