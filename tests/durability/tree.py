"""A command with all that it starts: killed as by a power cut, then searched for what is left."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_MARK = "TREE_OF_PROCESSES"  # in the environment of all of them
PATIENCE = 120  # seconds


class Tree:
    """A command that runs in a folder, in a session of its own, and writes into a log."""

    def __init__(self, folder: Path, command: Sequence[str], log: Path):
        self._folder, self._mark, self.log = folder.resolve(), uuid.uuid4().hex, log
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with log.open("wb") as stream:
            self._root = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", _MARK: self._mark},
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._root.pid

    def running(self) -> bool:
        """Whether the command has not ended."""
        return self._root.poll() is None

    def kill(self) -> bool:
        """SIGKILL to all at once; False when the command had ended before."""
        if not self.running():
            return False
        family: set[psutil.Process] = {psutil.Process(self._root.pid)}
        seen: set[psutil.Process] = set()
        while family != seen:  # held still first, so that none starts another meanwhile
            for process in family - seen:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            seen = set(family)
            for process in seen:
                with suppress(psutil.NoSuchProcess):
                    family |= set(process.children(recursive=True))
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return self._root.wait() < 0

    def named(self, start: str) -> list[psutil.Process]:
        """Its processes whose command lines start so, oldest first."""
        found = []
        for process in psutil.Process(self._root.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith(start):
                    found.append(process)
        return sorted(found, key=psutil.Process.create_time)

    def end(self) -> tuple[int, str]:
        """Exit status and output, once the command has ended."""
        return self._root.wait(PATIENCE), self.log.read_text(errors="replace")

    def orphans(self, patience: float = 5.0) -> list[str]:
        """What of it is still alive so many seconds later, or works in its folder."""
        deadline = time.monotonic() + patience
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _left(self) -> list[str]:
        found, here = [], psutil.Process()
        others = set(psutil.process_iter()) - {here, *here.parents()}
        for process in sorted(others, key=lambda process: process.pid):
            with suppress(psutil.Error, OSError):
                marked = process.environ().get(_MARK) == self._mark
                if process.status() != psutil.STATUS_ZOMBIE and (
                    marked or Path(process.cwd()).is_relative_to(self._folder)
                ):
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
        return found


def wait_until(true: Callable[[], bool], tree: Tree, every: float = 0.01) -> None:
    """Until something is so; it must become so while a tree is running."""
    while not true():
        assert tree.running(), tree.log.read_text()
        time.sleep(every)


def run(folder: Path, *command: str) -> tuple[int, str]:
    """``python -m <command>`` in a folder, to its end: status, and both outputs together."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout
