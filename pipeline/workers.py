"""Which of a stage's shards one of several workers does; results do not depend on their number."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from pipeline.errors import InputError

Shard = TypeVar("Shard")


class Worker(NamedTuple):
    """Does those shards of a plan whose number is ``index`` modulo ``count``."""

    index: int = 0
    count: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other, so that what is not planned can go."""
        return self.count == 1

    def share(self, shards: Sequence[Shard]) -> Sequence[Shard]:
        """This one's part of a plan."""
        return shards[self.index :: self.count]


ALONE = Worker()


def parse_worker(text: str) -> Worker:
    """``"2/4"``, the second of four workers; InputError for anything else."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"--shard {text!r} is not of the form 2/4, the second of four workers")
    return Worker(int(number) - 1, int(count))
