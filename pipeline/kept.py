"""Copies of dvc.lock, for the case that DVC is killed while it writes it.

DVC writes the whole file anew after every stage, in place, for a second or two; cut off there, it
is lost. While a stage runs nobody writes it: so every stage keeps a copy of what it finds, which
``python -m pipeline.mend`` puts back.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from pipeline.artifacts import DVC_LOCKS, KEPT_LOCKS
from pipeline.storage import atomic_path, run_folder
from pipeline.times import as_file


def keep_locks() -> None:
    """Keep a copy of each dvc.lock that there is and that was not kept as it is now."""
    locks = [lock for lock in DVC_LOCKS if lock.exists()]
    if not locks:  # as in the workspace of a worker
        return
    folder = run_folder(KEPT_LOCKS, _commit())
    for lock in locks:
        with suppress(FileNotFoundError):  # another stage that starts just now keeps the same
            _keep(lock, folder / as_file(str(lock)))


def kept_lock(lock: Path) -> bytes | None:
    """The copy of a dvc.lock that a stage kept last, if git's HEAD is what it was then."""
    copy = KEPT_LOCKS / _commit() / as_file(str(lock))
    return copy.read_bytes() if copy.exists() else None


def _keep(lock: Path, copy: Path) -> None:
    now = lock.stat()
    if copy.exists():
        then = copy.stat()
        if (then.st_mtime_ns, then.st_size) == (now.st_mtime_ns, now.st_size):
            return
    with atomic_path(copy) as temporary:
        temporary.write_bytes(lock.read_bytes())
        os.utime(temporary, ns=(now.st_atime_ns, now.st_mtime_ns))


def _commit() -> str:
    """What git's HEAD is: the copy of another commit's file would be a wrong one."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return "none" if done.returncode else done.stdout.strip()
