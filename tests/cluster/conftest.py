"""A small DVC project, and a Ray of two CPUs to run it on."""

import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.cluster.connect import connect
from tests.imports import ROOT


@pytest.fixture(scope="package")
def cluster():
    """Two workers, for all tests that do not need nodes of their own."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        connect(None, 2, ROOT)
    yield
    ray.shutdown()


STEP = """
import pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
files = sorted(source.iterdir()) if source.is_dir() else [source]
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text("".join(f.read_text() for f in files) + target.name + "\\n")
print("wrote", target)
"""
PIPELINE = """
stages:
  part:
    foreach: [x, y]
    do:
      cmd: python step.py in.txt data/parts/${item}
      deps: [step.py, in.txt]
      outs: ["data/parts/${item}"]
  whole:
    cmd: python step.py data/parts metrics.json
    deps: [step.py, data/parts]
    metrics:
      - metrics.json:
          cache: false
  grown:
    cmd: python step.py metrics.json data/grown.txt
    deps: [step.py, metrics.json]
    params: [size]
    outs:
      - data/grown.txt:
          persist: true
"""


def lay_out(folder: Path, step: str, ignored: str) -> Path:
    """A project with two parts, a whole that git keeps, and what comes of it, never removed."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    Repo.init(str(folder)).close()
    (folder / "step.py").write_text(step)
    (folder / "in.txt").write_text("in\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("size: 1\n")
    (folder / ".gitignore").write_text(ignored)
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The project, not yet run, as the working folder."""
    folder = lay_out(tmp_path / "project", STEP, "/data/\n/own/\n")
    monkeypatch.chdir(folder)
    return folder
