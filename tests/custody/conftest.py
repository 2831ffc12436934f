"""A small repository with a git, a DVC, and two runs of stages that write the real kinds of files.

The second run has another version of everything, so that the cache holds what no lock names.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.repo import Repo
from safetensors.numpy import save_file

from pipeline import artifacts
from pipeline.custody.__main__ import main
from pipeline.lora import save_lora
from pipeline.records import DrawnImage, EncodedImage, PromptPair, Score
from pipeline.storage import private_folder, write_rows, write_text
from tests.conftest import png, prompt_pair
from tests.imports import ROOT
from tests.merging.examples import layer

MARK = "thornburst"  # in everything unsafe that the stages write, and in nothing else
CATEGORY = "violence"
ONCE, PERSISTENT = "made-once", "drawn-on"  # stages: with a run cache, and with outputs that stay
OUTPUTS = {
    ONCE: [artifacts.prompts(CATEGORY), artifacts.CONCEPTS, artifacts.latents(CATEGORY),
           artifacts.scores(CATEGORY), artifacts.expert(CATEGORY), artifacts.SHIPPED,
           artifacts.REPORT.parent],
    PERSISTENT: [artifacts.images(CATEGORY), artifacts.measured_part(CATEGORY)],
}  # fmt: skip


def drawn_image(version: int) -> DrawnImage:
    """A row whose image tells of the mark."""
    image = EncodedImage(png("red").bytes + f"{MARK} {version}".encode(), "red.png")
    return DrawnImage("id", "pair0", "unsafe", 0, version, "model", "", "{}", image)


def make_outputs(folder: Path, version: int) -> None:
    """All that a version of the stages writes."""
    once, persistent = folder / ONCE, folder / PERSISTENT
    write_rows(once / artifacts.prompts(CATEGORY), PromptPair, [prompt_pair(version)])
    write_text(once / artifacts.CONCEPTS / "x.yaml", f"concepts: [{MARK} {version}]")
    latents = private_folder(once / artifacts.latents(CATEGORY)) / "latents.safetensors"
    save_file({"rejected_mean": np.full(3, version, np.float32)}, latents, {"of": MARK})
    scores = [Score("id", "q16", "1", {"unsafe": 0.1 * version})]
    write_rows(once / artifacts.scores(CATEGORY), Score, scores)
    lora = {"x": layer([[float(version), 2.0], [3.0, 4.0]])}
    save_lora(once / artifacts.expert(CATEGORY), lora, {"version": version})
    write_text(once / artifacts.SHIPPED / "README.md", f"# A model card {version}\n")
    page = f'<!doctype html><img src="data:image/webp;base64,AA"> {MARK} {version}'
    write_text(once / artifacts.REPORT, page)
    write_rows(persistent / artifacts.images(CATEGORY) / "shard-00000.parquet", DrawnImage,
               [drawn_image(version)])  # fmt: skip
    part = persistent / artifacts.measured_part(CATEGORY)
    write_rows(part / "images/shard-00000.parquet", DrawnImage, [drawn_image(version + 10)])
    write_text(part / "metrics.json", f'{{"of": "{MARK} {version}"}}')


def _stage(name: str) -> dict:
    outs = [{str(path): {"persist": name == PERSISTENT}} for path in OUTPUTS[name]]
    return {"cmd": f"cp -r ../made/$(cat version)/{name}/. .", "deps": ["version"], "outs": outs}


def git(root: Path, *arguments: str) -> str:
    """What a git command prints."""
    identity = ["-c", "user.email=a@example.org", "-c", "user.name=a"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True,
                          capture_output=True, text=True).stdout  # fmt: skip


@pytest.fixture(scope="session")
def _template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("custody")
    root = folder / "repository"
    root.mkdir()
    for version in (1, 2):
        make_outputs(folder / "made" / str(version), version)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
        patch.chdir(root)
        git(root, "init", "--quiet")
        shutil.copy(ROOT / ".gitignore", root)
        Repo.init(str(root)).close()
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {n: _stage(n) for n in OUTPUTS}}))
        for name in (artifacts.DATA, artifacts.DVC_CACHE, artifacts.REPORT.parent):
            private_folder(root / name)
        for version in (1, 2):
            (root / "version").write_text(str(version))
            with Repo(str(root)) as repo:
                repo.reproduce()
        private_folder(root / artifacts.REPORT.parent)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "-m", "two runs")
    return folder


@pytest.fixture
def repository(_template, tmp_path, monkeypatch):
    """The root of a repository of one's own, which is the working directory."""
    shutil.copytree(_template, tmp_path / "own", symlinks=True)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path / "own/repository")
    return Path.cwd()


@pytest.fixture
def custody(monkeypatch, capsys):
    """Runs the command; returns its status and all that it says."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["custody", *arguments])
        status, said = 0, ""
        try:
            main()
        except SystemExit as exit_:
            status, said = (1, exit_.code) if isinstance(exit_.code, str) else (exit_.code, "")
        return status, "".join(capsys.readouterr()) + said

    return run


def cached(root: Path) -> set[Path]:
    """The objects of the repository's cache."""
    return {f for f in (root / ".dvc/cache/files").rglob("*") if f.is_file()}


def put_into_cache(root: Path, name: str, content: bytes) -> Path:
    """An object of DVC's cache."""
    path = root / ".dvc/cache/files/md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def listing(*members: str) -> bytes:
    """A folder's, of these objects."""
    return json.dumps([{"md5": m, "relpath": f"{k}.x"} for k, m in enumerate(members)]).encode()
