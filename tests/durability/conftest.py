"""A small DVC project whose stages can be held still, and are run as ours are."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import lay_out
from tests.custody.conftest import git
from tests.durability.tree import Tree, run
from tests.imports import ROOT

STEP = r"""
import json, pathlib, time
from pipeline.cli import run_stage
from pipeline.storage import write_text

def main(source: str, target: str) -> None:
    source, target = pathlib.Path(source), pathlib.Path(target)
    with open("journal", "a") as journal:
        journal.write(target.name + "\n")
    while pathlib.Path("hold").exists():
        time.sleep(0.02)
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    text = "".join(f.read_text() for f in files) + target.name
    write_text(target, (json.dumps(text) if target.suffix == ".json" else text) + "\n")

run_stage(main)
"""
STAGES = ("x", "y", "metrics.json", "grown.txt")  # by what they make


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The project as an undisturbed run leaves it, all of it committed that git is for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        folder = tmp_path_factory.mktemp("undisturbed")
        lay_out(folder, STEP, "/data/\n/journal\n/hold\n/log*\n")
        status, told = run(folder, "dvc", "repro")
        assert status == 0, told
        commit(folder)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    """A copy of it to be disturbed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = shutil.copytree(made, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(folder)
    (folder / "journal").unlink()
    return folder


def commit(folder: Path) -> None:
    """Commit everything that git takes up."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")


def unmade(folder: Path) -> Path:
    """Take away all that the run made, as in a fresh clone of the code."""
    for name in ("data", ".dvc/cache", ".dvc/tmp", "dvc.lock", "metrics.json"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    commit(folder)
    return folder


def journal(folder: Path) -> list[str]:
    """The stages that were started, in order, by what they make."""
    path = folder / "journal"
    return path.read_text().split() if path.exists() else []


def repro(folder: Path, *targets: str, log: str = "log") -> Tree:
    """``dvc repro`` as a tree of its own."""
    return Tree(folder, [sys.executable, "-m", "dvc", "repro", *targets], folder / log)


def set_times(folder: Path, seconds: float) -> None:
    """Set the times of all files that a run made or reads, as under another clock."""
    for path in folder.rglob("*"):
        if path.is_file() and ".git" not in path.relative_to(folder).parts:
            os.utime(path, (seconds, seconds))
