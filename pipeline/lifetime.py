"""Stages end with what started them: one that outlived it would work beside the next run."""

import ctypes
import os
import platform
import signal
import threading
import time

import psutil

_SET_PDEATHSIG = 1
_LOOK_EVERY = 0.2  # seconds


def _dvc() -> psutil.Process | None:
    """The DVC process that runs this as a stage, or the cluster's worker in its place.

    Between it and the stage may be a shell and a launcher, which have the stage's environment.
    """
    stage = os.environ.get("DVC_STAGE")
    for ancestor in psutil.Process().parents() if stage else ():
        try:
            if ancestor.environ().get("DVC_STAGE") != stage:
                return ancestor
        except psutil.Error:  # another user's, or gone just now
            return ancestor
    return None


_DVC = _dvc()  # found now: the ancestors of a process whose parent ends are others


def end_with_dvc() -> None:
    """Have this process killed when the DVC process that it is a stage of ends in whichever way.

    Nothing happens to a stage that was started by hand.
    """
    if _DVC is not None:
        threading.Thread(target=_kill_after, args=[_DVC], daemon=True).start()


def _kill_after(process: psutil.Process) -> None:
    while _lives(process):
        time.sleep(_LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGKILL)


def _lives(process: psutil.Process) -> bool:
    # one that ended is a zombie until its parent looks, which may be never
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends in whichever way."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
