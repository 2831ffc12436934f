"""Too little memory, on any device: known as such, and made do with by working in halves."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import InputError, first_line

Done = TypeVar("Done")
log = logging.getLogger(__name__)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is a lack of memory; of torch on a CPU only its text tells."""
    import torch

    lacking = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return lacking or "DefaultCPUAllocator" in str(error)


@contextmanager
def must_fit(what: str, remedy: str) -> Iterator[None]:
    """Turn an exhausted memory into an error that says what did not fit and what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"{what} does not fit into memory ({first_line(error)}); {remedy}"
        ) from error


@dataclass
class Fitting:
    """Works on so many things at once as memory holds, which it learns by failing.

    A batch that does not fit is halved, for good; that is said, because float sums differ in the
    last bit with the batch.

    Attributes:
        doing: what is done to them, such as "judge images".
        setting: the params key of the batch.
        most: that fit at once; None until memory has not sufficed.
    """

    doing: str
    setting: str
    most: int | None = None

    def run(self, count: int, work: Callable[[slice], Done], last_remedy: str) -> list[Done]:
        """``work`` done on a slice of ``count`` things or, if that does not fit, on its halves.

        Raises InputError, with ``last_remedy``, when not even one thing fits.
        """
        done: list[Done] = []
        first = 0
        while first < count:
            size = min(count - first, self.most or count)
            try:
                done.append(work(slice(first, first + size)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise InputError(f"memory does not suffice to {self.doing} one at a time; "
                                     f"{last_remedy}") from error  # fmt: skip
                self.most = size // 2
                log.warning(
                    "memory does not suffice to %s %d at once: going on with %d, whose last bits "
                    "may differ; set %s to it", self.doing, size, self.most, self.setting,
                )  # fmt: skip
            else:
                first += size
                continue
            _release()  # outside of the handler, whose traceback holds what did not fit
        return done


def _release() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
