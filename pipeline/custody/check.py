"""Whether the unsafe side is kept as it must be: closed to others, outside of git, where it should.

A folder of mode 0700 closes all that is below it, whatever the modes there.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.artifacts import DVC_TEMPORARY, EXTERNAL
from pipeline.custody.kinds import UNSAFE_AT
from pipeline.custody.repository import Repository
from pipeline.custody.scan import find_strays


def private_folders(repository: Repository) -> list[Path]:
    """The folders that must be closed to others and outside of git, if they are there."""
    unsafe = [place for places in UNSAFE_AT.values() for place in places]
    tops = {Path(place.parts[0]) for place in unsafe if place != DVC_TEMPORARY}
    inside = repository.cache.relative_to(repository.root) if repository.own_cache else None
    return [*sorted(tops), EXTERNAL, *repository.temporary, inside or repository.cache]


def find_faults(repository: Repository) -> list[str]:
    """What is wrong, each with what mends it."""
    private = private_folders(repository)
    faults = [fault for folder in private for fault in _open_to_others(folder)]
    if not repository.own_cache:
        private.remove(repository.cache)
    for folder in private:
        faults += _in_git(repository, folder)
    faults += [f"{f.path} holds {f.kind}, where the pipeline writes none: move it to a private "
               "folder or delete it" for f in find_strays(repository)]  # fmt: skip
    return faults


def _open_to_others(folder: Path) -> Iterator[str]:
    if folder.is_symlink():
        yield f"{folder} is a link: custody does not follow it; put the folder itself there"
    elif folder.exists() and (mode := folder.stat().st_mode & 0o777) & 0o077:
        yield f"{folder} has mode {mode:04o}, so others may look into it: chmod 700 {folder}"


def _in_git(repository: Repository, folder: Path) -> Iterator[str]:
    if not repository.ignores(folder):
        yield f"git does not ignore {folder}: add /{folder}/ to .gitignore"
    if tracked := repository.git("ls-files", "--", str(folder)):
        yield f"git tracks {len(tracked)} files in {folder}: git rm -r --cached {folder}"
    ever = repository.git("log", "--all", "--format=", "--name-only", "--", str(folder))
    if ever:
        yield (f"git's history holds {len(set(ever))} files of {folder}: git filter-repo "
               f"--invert-paths --path {folder}, and the same wherever it was pushed")  # fmt: skip
