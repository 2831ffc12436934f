"""Where stages say what they are at, for whoever watches the run."""

import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

TELL_EVERY = 1.0  # seconds
_TAIL = 2000  # characters of a log that an error quotes


class Word(NamedTuple):
    """What a stage says."""

    node: str
    last: str  # line of its log
    seconds: float  # since a worker began it


class Board:
    """Kept by an actor of its own, that every node can reach."""

    def __init__(self) -> None:
        self._words: dict[str, Word] = {}

    def tell(self, label: str, word: Word) -> None:
        self._words[label] = word

    def read(self) -> dict[str, Word]:
        return self._words


@contextmanager
def telling(board: Any, label: str, log: Path) -> Iterator[None]:
    """Meanwhile tell a board, an actor's handle, where this is and what is last in the log."""
    ended, start = threading.Event(), time.monotonic()

    def tell() -> None:
        waited = False
        while not waited:
            word = Word(platform.node(), last_line(log), time.monotonic() - start)
            board.tell.remote(label, word)
            waited = ended.wait(TELL_EVERY)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def tail(log: str) -> str:
    """The end of a log; of lines that were written over, as those of progress bars, the last."""
    lines = log[-_TAIL:].rstrip().split("\n")
    return "\n".join(line.rsplit("\r", 1)[-1] for line in lines)


def last_line(log: Path) -> str:
    """The last words of a log that is being written, none when it is not here."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return tail(file.read().decode(errors="replace")).rsplit("\n", 1)[-1]
