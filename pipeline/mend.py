"""Puts right what a kill or a power cut left half-written of DVC's own files.

When dvc.lock was cut off, ``dvc repro`` refuses to start, or goes on without the entries that are
gone; without its list of paths that commands are busy with it refuses; and what it was copying
stays for ever. A stage's own files need nothing: they are written atomically, and stages go on
where they were. Says what it did, and nothing when all is well.
"""

import argparse
import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import DVC_CLAIMS, DVC_LOCKS, EXTERNAL
from pipeline.cli import end_in_one_line
from pipeline.errors import InputError
from pipeline.hold import AT_WORK, experiments, held
from pipeline.kept import kept_lock
from pipeline.storage import atomic_path

if TYPE_CHECKING:
    from dvc.repo import Repo

_COPYING = re.compile(r"\.[\w-]{22}\.tmp")  # what DVC calls a file that it is copying
_NOT_DVCS = {".git", ".venv", ".venv-vllm", EXTERNAL.name}


def mend() -> list[str]:
    """Put right what is damaged in the checkout here, and tell what was done.

    Raises InputError while DVC is at work, which damages nothing.
    """
    if not (_damaged_claims() or any(map(damage, DVC_LOCKS)) or next(_copied_in_part(), None)):
        return []
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of every process that was killed
    with Repo() as repo:
        done = _drop_claims(repo)
        with held(repo, "mend", experiments()):
            done += [_put_back(lock) for lock in DVC_LOCKS if damage(lock)]
            for path in _copied_in_part():
                path.unlink()
                done.append(f"{path}: what DVC was copying when it ended; removed")
    return done


def damage(lock: Path) -> str | None:
    """What is wrong with a dvc.lock, if anything is; not that git left marks of a conflict in it.

    A kill cuts it off somewhere. Between two outputs that can be told by the copy only: those that
    are left are the first ones there.
    """
    text = lock.read_bytes() if lock.exists() else None
    if text is None or b"\n<<<<<<< " in text:
        return None
    if not text:
        return "was empty"
    copy = kept_lock(lock)
    if text == copy:
        return None
    left = _outputs(text)
    if left is None:
        return "was cut off"
    known = _outputs(copy) if copy else None
    if known and len(left) < len(known) and left == known[: len(left)]:
        return None if text == _in_git(lock) else "was cut off"
    return None


def _put_back(lock: Path) -> str:
    what = damage(lock)
    for text, whose in ((kept_lock(lock), "the copy that a stage kept"), (_in_git(lock), "git's")):
        if text and _outputs(text) is not None:
            with atomic_path(lock) as temporary:
                temporary.write_bytes(text)
            return f"{lock} {what}: put back {whose}"
    lock.unlink()
    return f"{lock} {what} and there is no copy: removed, since DVC's cache knows what stages made"


def _outputs(text: bytes) -> list[tuple[str, str]] | None:
    """Stages and outputs of a dvc.lock in its order; None unless it ends as DVC ends one.

    Each of our stages has outputs, which come last, with their sizes, which come last.
    """
    import yaml

    try:
        loaded = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        stages = list(loaded["stages"].items())
        last = stages[-1][1]["outs"][-1]
        whole = ("nfiles" if last["md5"].endswith(".dir") else "size") in last
        named = [(name, out["path"]) for name, stage in stages for out in stage.get("outs", ())]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, IndexError):
        return None  # what it lacks depends on where it was cut off
    return named if whole and text.endswith(b"\n") else None


def _in_git(lock: Path) -> bytes | None:
    done = subprocess.run(["git", "show", f"HEAD:./{lock}"], capture_output=True)
    return None if done.returncode else done.stdout


def _damaged_claims() -> bool:
    try:
        json.loads(DVC_CLAIMS.read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


def _drop_claims(repo: "Repo") -> list[str]:
    """Remove a damaged list of busy paths, unless a stage is running, which is on it."""
    from dvc.lock import LockError

    try:
        with repo.lock:
            if not _damaged_claims():
                return []
            if running := _running_stage():
                raise InputError(f"{running} is running here; wait for it or stop it, then run "
                                 "this again")  # fmt: skip
            DVC_CLAIMS.unlink()
    except LockError as error:
        raise InputError(AT_WORK) from error
    return [f"{DVC_CLAIMS} was cut off: removed, nothing is running"]


def _running_stage() -> str | None:
    """The name and process of a stage that DVC started here, even if DVC itself is gone."""
    import psutil

    for process in psutil.process_iter():
        try:
            started = process.environ()
            if "DVC_STAGE" in started and Path(started["DVC_ROOT"]).samefile("."):
                return f"{started['DVC_STAGE']} (process {process.pid})"
        except (psutil.Error, OSError, KeyError):
            continue  # another user's, or gone
    return None


def _copied_in_part() -> Iterator[Path]:
    for folder, below, files in os.walk("."):
        below[:] = [name for name in below if name not in _NOT_DVCS]
        yield from (Path(folder, name) for name in files if _COPYING.fullmatch(name))


def main() -> None:
    """Command line entry point."""
    argparse.ArgumentParser(
        prog="python -m pipeline.mend", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()  # fmt: skip
    end_in_one_line("mend", _tell)


def _tell() -> None:
    for line in mend():
        print(line)


if __name__ == "__main__":
    main()
