"""Artefacts through a remote: a real S3 server on this machine, and clones that share nothing else.

DVC runs as the commands that docs/remotes.md names: it reads the umask when it is imported.
"""

import hashlib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from dvc.cli import main as dvc_main
from dvc.exceptions import ReproductionError
from dvc.repo import Repo

from pipeline.custody.check import find_faults
from pipeline.custody.repository import open_repository
from tests.conftest import S3_SETTINGS
from tests.custody.conftest import git
from tests.imports import ROOT

PREFIX = "safety"
STEP = """
import json, os, pathlib, sys
if "IDLE" in os.environ:
    sys.exit("a stage ran")
for folder in ("data/images", "data/scores", "metrics", "models"):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
if sys.argv[1:] == ["score"]:
    shards = sorted(pathlib.Path("data/images").rglob("*.parquet"))
    pathlib.Path("data/scores/all.parquet").write_bytes(b"".join(s.read_bytes() for s in shards))
    pathlib.Path("models/lora.safetensors").write_bytes(bytes(1 << 20))
    pathlib.Path("metrics/scores.json").write_text(json.dumps({"images": len(shards)}))
else:
    folder = pathlib.Path("data/images", sys.argv[1])
    folder.mkdir(exist_ok=True)
    for k in range(3):  # the first is empty
        (folder / f"shard-{k}.parquet").write_bytes(sys.argv[1].encode() * 1000 * k)
"""
PIPELINE = """
stages:
  draw:
    matrix:
      category: [hate, violence]
    cmd: python step.py ${item.category}
    deps: [step.py]
    outs:
      - data/images/${item.category}:
          persist: true
  score:
    cmd: python step.py score
    deps: [step.py, data/images]
    outs: [data/scores/all.parquet, models/lora.safetensors]
    metrics:
      - metrics/scores.json:
          cache: false
"""
FILES = [f"data/images/{c}/shard-{k}.parquet" for c in ("hate", "violence") for k in range(3)]
FILES += ["data/scores/all.parquet", "models/lora.safetensors", "metrics/scores.json"]


def machine(folder: Path) -> dict[str, str]:
    """The environment of a machine of its own: what DVC keeps beside a checkout is in a folder."""
    own = {f"DVC_{kind}_DIR": str(folder / f"dvc-{kind}")
           for kind in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")}  # fmt: skip
    inherited = {k: v for k, v in os.environ.items()
                 if not k.startswith(("AWS_", "DVC_")) and k.lower() != "no_proxy"}  # fmt: skip
    return inherited | S3_SETTINGS | own


def dvc(root: Path, *arguments: str, umask: int = 0o022) -> tuple[int, str]:
    """The status of a DVC command in a checkout, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, env=machine(root.parent), umask=umask,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def origin(tmp_path_factory, bucket):
    """A checkout whose outputs were made and pushed."""
    root = tmp_path_factory.mktemp("origin") / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    (root / "step.py").write_text(STEP)
    (root / "dvc.yaml").write_text(PIPELINE)
    where = bucket.meta.client.meta.endpoint_url
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, value in machine(root.parent).items():
            patch.setenv(name, value)
        for command in (["init", "--quiet"], ["repro", "--quiet"],
                        ["remote", "add", "--default", "storage", f"s3://{bucket.name}/{PREFIX}"],
                        ["remote", "modify", "storage", "endpointurl", where],
                        ["remote", "modify", "storage", "verify", "true"], ["push"]):  # fmt: skip
            assert dvc_main(command) == 0, command
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "a run")
    return root


@pytest.fixture
def clone(origin, tmp_path, monkeypatch) -> Path:
    """A clone on another machine, on which every stage fails."""
    root = tmp_path / "checkout"
    git(tmp_path, "clone", "--quiet", str(origin), str(root))
    for name, value in machine(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IDLE", "1")
    monkeypatch.chdir(root)
    assert not (root / "data").exists() and not (root / ".dvc/cache").exists()
    return root


def object_name(origin: Path, file: str) -> str:
    """What DVC calls a file's content."""
    return hashlib.md5((origin / file).read_bytes()).hexdigest()


@contextmanager
def spoilt(bucket, origin: Path, file: str, content: bytes | None):
    """Within, the bucket has other content for a file, or lacks its object."""
    name = object_name(origin, file)
    item = bucket.Object(f"{PREFIX}/files/md5/{name[:2]}/{name[2:]}")
    item.load()  # it is there
    item.delete() if content is None else item.put(Body=content)
    yield
    item.put(Body=(origin / file).read_bytes())


def test_a_clone_gets_everything_and_no_stage_runs(origin, clone):
    assert {f for f in FILES if (clone / f).exists()} == {"metrics/scores.json"}  # by git
    status, said = dvc(clone, "pull", umask=0o077)
    assert status == 0, said
    for file in FILES:
        assert (clone / file).read_bytes() == (origin / file).read_bytes(), file
    with open_repository() as repository:
        assert find_faults(repository) == []
    lock = (clone / "dvc.lock").read_text()
    with Repo(str(clone)) as repo:
        assert repo.status() == {}
        assert repo.reproduce() == []
    assert (clone / "dvc.lock").read_text() == lock
    (clone / "step.py").write_text(f"{STEP}# a change\n")
    with Repo(str(clone)) as repo, pytest.raises(ReproductionError):
        repo.reproduce()  # so a stage that runs is seen


def test_custody_tells_when_the_umask_was_forgotten(clone):
    status, said = dvc(clone, "pull", umask=0o022)
    assert status == 0, said
    with open_repository() as repository:
        faults = find_faults(repository)
    assert [fault.split(" has mode")[0] for fault in faults] == ["data", ".dvc/cache"]


def test_what_the_bucket_has_lost_is_an_error_and_no_gap(bucket, origin, clone):
    lost = "data/images/violence/shard-1.parquet"
    for content in (None, b"x" * len((origin / lost).read_bytes())):  # missing, damaged
        with spoilt(bucket, origin, lost, content):
            status, said = dvc(clone, "pull", umask=0o077)
        assert status != 0
        assert object_name(origin, lost) in said or "data/images/violence" in said
        assert not (clone / lost).exists()
        with Repo(str(clone)) as repo:
            assert "draw@violence" in repo.status()
    status, said = dvc(clone, "pull", umask=0o077)  # the bucket is whole again
    assert status == 0, said
    assert (clone / lost).read_bytes() == (origin / lost).read_bytes()


def test_the_bucket_holds_what_the_lock_names_and_nothing_else(bucket, origin):
    lock = yaml.safe_load((origin / "dvc.lock").read_text())["stages"]
    wanted = {out["md5"] for stage in lock.values() for out in stage["outs"]}
    wanted -= {object_name(origin, "metrics/scores.json")}  # which git keeps
    wanted |= {object_name(origin, file) for file in FILES if file.startswith("data/images/")}
    assert {"".join(item.key.split("/")[-2:]) for item in bucket.objects.all()} == wanted
