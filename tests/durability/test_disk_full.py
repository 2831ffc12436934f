"""A real disk that fills up in mid-write, a small tmpfs: all that it takes to go on is space."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.runs import lock
from tests.durability.conftest import commit
from tests.durability.halves import half_written

GROW = """
from pipeline.cli import run_stage
from pipeline.records import Score
from pipeline.storage import write_rows

def main(rows: str) -> None:
    rows = (Score(f"{k ** 9:x}", "q16", "v", {"a": k ** 0.5}) for k in range(int(rows)))
    write_rows("data/rows.parquet", Score, rows)

run_stage(main)
"""
FILL = """
import pathlib, random
from pipeline.storage import atomic_path
with atomic_path(pathlib.Path("data/large")) as temporary:
    temporary.write_bytes(random.Random(0).randbytes(300 << 10))
"""


class Disk:
    """A tmpfs in a namespace of its own, in which commands run; gone when it is closed."""

    def __init__(self, folder: Path, kib: int):
        folder.mkdir()
        self._folder = folder
        self._holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && echo && exec cat', folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.here = bool(self._holder.stdout.readline())
        self.seen = Path(f"/proc/{self._holder.pid}/root{folder}")  # from outside
        if self.here:
            self.resize(kib)

    def run(self, *command: str) -> tuple[int, str]:
        """Status and output of a command that runs there."""
        inside = ["nsenter", "-t", str(self._holder.pid), "-U", "--preserve-credentials", "-m"]
        done = subprocess.run(
            [*inside, "sh", "-c", 'cd "$0" && exec "$@"', self._folder, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout

    def resize(self, kib: int) -> None:
        """Make it larger or smaller."""
        assert self.run("mount", "-o", f"remount,size={kib}k", str(self._folder)) == (0, "")

    def used(self) -> int:
        """KiB that are taken."""
        return int(self.run("df", "--output=used", str(self._folder))[1].split()[-1])

    def close(self) -> str:
        """Unmount it; returns what went wrong, if anything."""
        return self._holder.communicate()[1].decode().strip()


@pytest.fixture
def disk(tmp_path):
    """A disk of 400 KiB."""
    disk = Disk(tmp_path / "disk", 400)
    if not disk.here:
        pytest.skip(f"no small disk can be mounted here: {disk.close()}")
    yield disk
    disk.close()


def test_a_stage_that_finds_the_disk_full_keeps_what_was_there_and_goes_on_later(disk, project):
    (disk.seen / "grow.py").write_text(GROW)
    grow = (sys.executable, "grow.py")
    assert disk.run(*grow, "100") == (0, "")
    before = (disk.seen / "data/rows.parquet").read_bytes()
    status, told = disk.run(*grow, "40000")
    assert (status, told.count("\n")) == (1, 1), told
    assert told.startswith("grow: the disk is full (")
    assert told.endswith("free some space and run the same command again\n")
    assert (disk.seen / "data/rows.parquet").read_bytes() == before
    assert [p.name for p in (disk.seen / "data").iterdir()] == ["rows.parquet"]
    disk.resize(20_000)
    assert disk.run(*grow, "40000") == (0, "")
    assert (disk.seen / "data/rows.parquet").stat().st_size > len(before)


def test_a_cache_that_has_no_room_gets_no_half_object(disk, project):
    """The stage's file fits, DVC's copy of it does not."""
    (project / "step.py").write_text(FILL)
    (project / "dvc.yaml").write_text(
        "stages:\n  fill:\n    cmd: python step.py\n    deps: [step.py]\n    outs: [data/large]\n"
    )
    (project / "dvc.lock").unlink()
    commit(project)
    for made in ("data", ".dvc/cache", ".dvc/tmp", ".git/hooks", "log"):
        shutil.rmtree(project / made, ignore_errors=True)
    disk.resize(20_000)
    shutil.copytree(project, disk.seen, dirs_exist_ok=True)
    disk.resize(disk.used() + 450)
    repro = (sys.executable, "-m", "dvc", "repro")
    status, told = disk.run(*repro)
    assert status, told
    assert "No space left on device" in told
    disk.resize(20_000)
    assert disk.run(sys.executable, "-m", "pipeline.mend")[0] == 0
    assert half_written(disk.seen) == []
    status, told = disk.run(*repro)
    assert status == 0, told
    assert half_written(disk.seen) == []
    assert lock(disk.seen)["stages"].keys() == {"fill"}
