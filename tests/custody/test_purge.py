import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dvc.repo import Repo

from pipeline.custody.purge import purge
from pipeline.custody.repository import open_repository
from pipeline.custody.scan import owned, scan
from pipeline.lora import load_lora
from tests.conftest import png
from tests.custody.conftest import CATEGORY, MARK, cached, put_into_cache

EXPERT = Path("models/experts") / CATEGORY


def tells(path):
    """Whether a file holds the mark; Parquet's columns are compressed."""
    content = path.read_bytes()
    if content.startswith(b"PAR1"):
        content += repr(pq.read_table(path).to_pylist()).encode()
    return MARK.encode() in content


def telling(folder):
    return sorted(p for p in Path(folder).rglob("*") if p.is_file() and tells(p))


@pytest.fixture
def unfinished():
    """What killed runs left: prompts, and the workspace of an experiment with all of its data."""
    pieces = Path(".checkpoints/prompts/violence/run/batch-00000.json")
    pieces.parent.mkdir(parents=True)
    pieces.write_text(MARK)
    workspace = Path(".dvc/tmp/exps/standalone/tmpabc")
    (workspace / ".git").mkdir(parents=True)
    shutil.copytree("data", workspace / "data")
    queue = Path(".dvc/tmp/exps/run/queued.json")
    queue.parent.mkdir()
    queue.write_text("{}")
    return workspace, queue


def test_nothing_unsafe_is_left_anywhere_and_the_rest_is(repository, unfinished, custody):
    shutil.copytree("data/images", "generated")
    assert len(telling("data")) == 6
    assert len([f for f in telling(".dvc/cache")]) == 14  # of both runs
    kept = {p: p.read_bytes() for p in [*EXPERT.iterdir(), Path("models/shipped/README.md"),
                                        Path("data/scores/violence.parquet")]}  # fmt: skip
    status, said = custody("purge", "--yes")
    assert status == 0, said
    assert telling(".") == []
    assert {p: p.read_bytes() for p in kept} == kept
    assert len(cached(repository)) == 2 * (3 + 2)  # two runs of files and of their listings
    workspace, queue = unfinished
    assert not workspace.exists() and queue.exists()
    left = said.partition("left:")[2]
    assert "unsafe  " not in left and "kept    models" in left
    assert Path("data").stat().st_mode & 0o777 == 0o700
    assert custody("check")[0] == 0


def test_a_plan_and_an_answer_other_than_yes_delete_nothing(repository, custody, monkeypatch):
    before = telling(".")
    status, said = custody("purge", "--plan")
    assert status == 0
    assert "unsafe  images            cache " in said
    assert "--yes deletes" in custody("purge")[1]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert custody("purge")[0] == 1
    assert telling(".") == before
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    assert custody("purge")[0] == 0
    assert telling(".") == []


def test_what_may_be_unsafe_stays_and_is_no_success(repository, custody):
    note = put_into_cache(repository, "c" * 32, b"a note")
    Path("picture.png").write_bytes(png("red").bytes)
    status, said = custody("purge", "--yes")
    assert status == 1
    assert f"unknown: {note}" in said and "unsafe: picture.png (images)" in said
    assert "2 files are left" in said
    assert note.exists() and Path("picture.png").exists()
    assert telling(".") == []
    note.unlink(), Path("picture.png").unlink()
    assert custody("purge", "--yes")[0] == 0


def test_links_are_never_followed(repository, custody):
    outside = repository.parent / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(png("red").bytes)
    Path("data/images/far").symlink_to(outside)
    status, said = custody("purge", "--yes")
    assert (status, "unknown: data/images/far (link to elsewhere)" in said) == (1, True)
    assert (outside / "a.png").exists() and Path("data/images/far").is_symlink()


def test_workspaces_of_links_into_the_cache_are_purged(repository, custody):
    Path(".dvc/config.local").write_text("[cache]\n    type = symlink\n")
    shutil.rmtree("data/images")
    with Repo(".") as repo:
        repo.checkout(force=True, relink=True)
    assert Path("data/images/violence/shard-00000.parquet").is_symlink()
    assert custody("purge", "--yes")[0] == 0
    assert telling(".") == []
    assert not Path("data/images/violence").exists()
    load_lora(EXPERT)


@pytest.mark.parametrize("done", [3, 12, 21, 30])
def test_a_purge_that_was_killed_goes_on(repository, custody, monkeypatch, done):
    """Wherever it was killed: what is left is as well known as before."""
    real, left = Path.unlink, [done]

    def unlink(self, missing_ok=False):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(self, missing_ok)

    with open_repository() as opened, monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        try:
            purge(scan(opened), owned(opened))
        except KeyboardInterrupt:
            pass
    status, said = custody("purge", "--yes")
    assert status == 0, said
    assert telling(".") == []


def test_a_file_that_cannot_be_deleted_is_named(repository, custody, monkeypatch):
    def refuse(self, missing_ok):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    status, said = custody("purge", "--yes")
    assert status == 1
    assert " cannot be deleted (Operation not permitted)" in said


def test_a_stage_at_work_is_not_disturbed(repository, custody):
    Path("dvc.yaml").write_text(
        "stages:\n  slow:\n    outs: [it]\n"
        "    cmd: touch begun; while [ ! -e go ]; do sleep 0.05; done; touch it\n"
    )
    before = telling("data")
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro"], stdout=subprocess.DEVNULL) as dvc:
        while not Path("begun").exists():
            assert dvc.poll() is None
            time.sleep(0.05)
        status, said = custody("purge", "--yes")
        Path("go").touch()
    assert (status, "is at work here" in said) == (1, True)
    assert telling("data") == before
    assert dvc.returncode == 0


def test_an_experiment_at_work_beside_this_one_is_not_disturbed(repository, custody, unfinished):
    """Its workspace has a DVC of its own, and its stage's lock there."""
    workspace, _ = unfinished
    image = str(workspace.resolve() / "data/images/violence")
    (workspace / ".dvc/tmp").mkdir(parents=True)
    lock = {"write": {image: {"pid": os.getppid(), "cmd": "dvc"}}, "read": {}}
    (workspace / ".dvc/tmp/rwlock").write_text(json.dumps(lock))
    status, said = custody("purge", "--yes")
    assert (status, "is at work here" in said) == (1, True)
    assert telling(workspace)


def test_a_cache_that_others_may_share_needs_a_word_more(repository, custody):
    shutil.move(".dvc/cache", "../cache")
    Path(".dvc/config.local").write_text(f"[cache]\n    dir = {repository.parent / 'cache'}\n")
    status, said = custody("purge", "--yes")
    assert (status, "--whole-cache deletes" in said) == (1, True)
    assert len(telling("../cache")) == 14
    assert custody("purge", "--yes", "--whole-cache")[0] == 0
    assert telling(".") == telling("../cache") == []


def test_remotes_and_what_was_fetched_are_named_as_not_looked_at(repository, custody):
    Path(".dvc/config.local").write_text("['remote \"far\"']\n    url = /nowhere\n")
    Path("external").mkdir(mode=0o700)
    Path("external/prompts.csv").write_text(MARK)
    status, said = custody("purge", "--yes")
    assert status == 0
    assert "not looked at: the remote far" in said
    assert "not looked at: 1 files in external" in said
    assert Path("external/prompts.csv").exists()


def test_the_pipeline_makes_it_anew(repository, custody):
    before = telling("data")
    custody("purge", "--yes")
    with Repo(".") as repo:
        repo.reproduce()
    assert telling("data") == before
