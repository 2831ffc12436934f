"""The repository that custody is about: its git, and where its DVC keeps things."""

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError, first_line
from pipeline.hold import experiments, held

if TYPE_CHECKING:
    from dvc.repo import Repo


@dataclass(frozen=True)
class Repository:
    """A checkout with git and DVC; the working directory is its root."""

    dvc: "Repo"

    @property
    def root(self) -> Path:
        """The checkout, links resolved."""
        return Path(self.dvc.root_dir).resolve()

    @property
    def cache(self) -> Path:
        """DVC's cache, links resolved; several projects may share one outside of ``root``."""
        return Path(self.dvc.cache.local_cache_dir).resolve()

    @property
    def own_cache(self) -> bool:
        """Whether the cache is this checkout's alone."""
        return self.cache.is_relative_to(self.root)

    @property
    def remotes(self) -> list[str]:
        """The names of DVC's remotes."""
        return sorted(self.dvc.config["remote"])

    @property
    def temporary(self) -> list[Path]:
        """Workspaces that experiments beside this one have left, or work in."""
        return experiments()

    def git(self, command: str, *arguments: str) -> list[str]:
        """The paths that a git command prints; InputError when it fails."""
        done = self._run("git", command, "-z", *arguments)
        if done.returncode:
            told = next(iter(done.stderr.splitlines()), "no word")
            raise InputError(f"git {command} failed ({told}); custody needs the git repository")
        return [path.strip("\n") for path in done.stdout.split("\0") if path.strip("\n")]

    def ignores(self, folder: Path) -> bool:
        """Whether git would leave out whatever is put into a folder."""
        return not self._run("git", "check-ignore", "--quiet", str(folder / "file")).returncode

    def _run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, no DVC command can start here; InputError when one is at work."""
        with held(self.dvc, "custody", self.temporary):
            yield


@contextmanager
def open_repository() -> Iterator[Repository]:
    """The repository of the working directory; InputError unless that is its root."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo()
    except DvcException as error:
        raise InputError(f"no DVC repository is here ({first_line(error)})") from error
    with repo:
        if Path(repo.root_dir).resolve() != Path.cwd():
            raise InputError(f"run this in {repo.root_dir}, the repository's root")
        yield Repository(repo)


def below(path: Path, places: Iterable[Path]) -> bool:
    """Whether a path is one of some places, or lies below one."""
    return any(path.is_relative_to(place) for place in places)
