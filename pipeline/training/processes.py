"""Several processes as one run, as ``accelerate launch`` starts them.

Every process does its share of each batch and sums what it found with the others, so a run's
results do not depend on how many there are, up to the order of additions.
"""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.lifetime import end_with_parent

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """This process's place among those of the run."""

    index: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.index == 0

    def share(self, items: "Tensor") -> "Tensor":
        """This process's part of a batch, (n, ...) to (about n / count, ...)."""
        return items.tensor_split(self.count)[self.index]

    def sum(self, value: "Tensor") -> "Tensor":
        """The sum of a tensor over all processes, on each of them."""
        if self.count == 1:
            return value
        import torch.distributed

        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    def part(self) -> None:
        """Take leave of the others, when every one of them is here."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()
            torch.distributed.destroy_process_group()


ALONE = Processes()


def join_processes() -> Processes:
    """Meet the other processes of an ``accelerate launch``; alone without one.

    All but the main one log warnings only. Raises InputError when there are fewer GPUs than
    processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    end_with_parent()  # a killed launcher would leave its processes behind, waiting for each other
    import torch
    from accelerate import PartialState

    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < here:
        raise InputError(f"{here} processes on a machine with {gpus} GPUs; start one for each")

    state = PartialState(cpu=not torch.cuda.is_available())  # each on its own device, if it has one
    processes = Processes(state.process_index, state.num_processes)
    if not processes.main:
        logging.getLogger("pipeline").setLevel(logging.WARNING)
    return processes
