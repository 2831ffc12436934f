"""DVC's own locks on a checkout, for work beside which no DVC command may go on."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import DVC_TEMPORARY
from pipeline.errors import InputError

if TYPE_CHECKING:
    from dvc.repo import Repo

AT_WORK = (
    "another DVC command, or a stage of one, is at work here; wait for it or stop it, then run "
    "this again"
)


def experiments() -> list[Path]:
    """Workspaces that experiments beside the checkout here have left, or work in."""
    found = [*DVC_TEMPORARY.glob("*/.git"), *DVC_TEMPORARY.glob("*/*/.git")]
    return sorted(git.parent for git in found)


@contextmanager
def held(repo: "Repo", work: str, workspaces: Sequence[Path] = ()) -> Iterator[None]:
    """Within, no DVC command can start in a repository.

    Raises InputError when one, or a stage that one has started, is at work there, or in a workspace
    of an experiment beside it. ``work`` is what DVC tells others that they wait for.
    """
    from dvc.lock import LockError
    from dvc.rwlock import RWLockFileCorruptedError

    with ExitStack() as stack:
        try:
            for workspace in workspaces:
                with _claimed(repo, workspace.resolve(), work):
                    pass
            stack.enter_context(repo.lock)
            stack.enter_context(_claimed(repo, Path(repo.root_dir).resolve(), work))
        except LockError as error:
            raise InputError(AT_WORK) from error
        except RWLockFileCorruptedError as error:
            raise InputError(f"{error}; `python -m pipeline.mend` mends it") from error
        yield


def _claimed(repo: "Repo", root: Path, work: str):
    """DVC's own lock on all paths below a root, which knows of stages that run."""
    from dvc.rwlock import rwlock

    folder = root / ".dvc/tmp"
    folder.mkdir(parents=True, exist_ok=True)
    hardlink = repo.config["core"].get("hardlink_lock", False)
    return rwlock(str(folder), repo.fs, work, [], [str(root)], hardlink)
