"""What a kill can leave of DVC's own files, each beginning of dvc.lock among it."""

import json
import os
import subprocess
import sys

import pytest

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.kept import keep_locks
from pipeline.mend import damage, mend

LOCK = artifacts.DVC_LOCKS[0]


def entry(name, md5, outs=2):
    lines = f"  {name}:\n    cmd: python -m stages.{name}\n    deps:\n"
    lines += "    - path: code.py\n      hash: md5\n      md5: aa\n      size: 1234\n"
    lines += "    params:\n      params.yaml:\n        seed: 0\n    outs:\n"
    for k in range(outs):
        lines += f"    - path: {name}/{k}\n      hash: md5\n      md5: {md5}{k}.dir\n"
        lines += "      size: 12\n      nfiles: 3\n"
    return lines


def text(*md5s):
    stages = "".join(entry(f"stage{k}@x", md5) for k, md5 in enumerate(md5s))
    return f"schema: '2.0'\nstages:\n{stages}"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with DVC in it, and a dvc.lock of three stages in git."""
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    Repo.init().close()
    LOCK.write_text(text("a", "a", "a"))
    commit()
    return tmp_path


def git(*arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def commit():
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message", "x")


def test_every_beginning_of_a_lock_that_dvc_was_writing_is_damage(repository):
    keep_locks()
    written = text("a", "b", "a").encode()
    lines = [k + 1 for k, byte in enumerate(written) if byte == ord("\n")]
    for end in sorted({0, *lines[:-1], *(k - 1 for k in lines), *(k - 4 for k in lines)}):
        LOCK.write_bytes(written[:end])
        assert damage(LOCK), written[:end].decode()[-60:]
    LOCK.write_bytes(written)
    assert damage(LOCK) is None


def test_what_a_stage_kept_is_put_back_rather_than_gits(repository):
    LOCK.write_text(text("a", "b", "a"))
    keep_locks()
    LOCK.write_text(text("a", "b", "c")[:300])
    assert mend() == ["dvc.lock was cut off: put back the copy that a stage kept"]
    assert LOCK.read_text() == text("a", "b", "a")
    assert mend() == []


def test_a_copy_is_of_its_commit_and_made_anew_when_the_file_changed(repository):
    keep_locks()
    LOCK.write_text(text("b", "b", "b"))
    keep_locks()
    LOCK.write_text("")
    assert mend() == ["dvc.lock was empty: put back the copy that a stage kept"]
    assert LOCK.read_text() == text("b", "b", "b")
    commit()
    LOCK.write_text("schema:")
    assert mend() == ["dvc.lock was cut off: put back git's"]
    keep_locks()
    assert [p.name for p in artifacts.KEPT_LOCKS.iterdir()] == [
        subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    ]


def test_a_damaged_copy_is_not_put_back(repository):
    LOCK.write_text(text("b", "b", "b")[:400])
    keep_locks()
    LOCK.write_text("")
    assert mend() == ["dvc.lock was empty: put back git's"]
    assert LOCK.read_text() == text("a", "a", "a")


def test_without_any_copy_it_is_removed_and_dvc_goes_by_its_cache(repository):
    other = artifacts.DVC_LOCKS[1]
    other.parent.mkdir()
    other.write_text("schema")
    assert mend() == ["studies/dvc.lock was cut off and there is no copy: removed, since DVC's "
                      "cache knows what stages made"]  # fmt: skip
    assert not other.exists()


@pytest.mark.parametrize("shape", ["more", "fewer", "other", "git", "conflict", "none"])
def test_what_somebody_may_have_meant_is_left_alone(repository, shape):
    LOCK.write_text(text("a", "a", "a", "a") if shape == "git" else text("a", "b", "a"))
    keep_locks()
    own = {
        "more": text("a", "b", "c", "d"),
        "fewer": text("a", "b", "a").replace(entry("stage1@x", "b"), ""),
        "other": text("x", "y", "z"),
        "git": text("a", "a", "a"),  # git checkout dvc.lock, after a stage was added
        "conflict": text("a", "b", "a").replace("  stage1", "<<<<<<< HEAD\n  stage1"),
    }.get(shape)
    LOCK.unlink()
    if own:
        LOCK.write_text(own)
    assert mend() == []
    assert not LOCK.exists() or LOCK.read_text() == own


def test_nothing_is_kept_where_there_is_no_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keep_locks()
    assert list(tmp_path.iterdir()) == []


def test_a_cut_off_list_of_busy_paths_is_removed_and_a_whole_one_is_not(repository):
    artifacts.DVC_CLAIMS.parent.mkdir(exist_ok=True)
    whole = {"write": {"data": {"pid": 2**30, "cmd": "dvc repro"}}}
    artifacts.DVC_CLAIMS.write_text(json.dumps(whole))
    assert mend() == []
    assert json.loads(artifacts.DVC_CLAIMS.read_text()) == whole
    artifacts.DVC_CLAIMS.write_text(json.dumps(whole)[:-3])
    assert mend() == [".dvc/tmp/rwlock was cut off: removed, nothing is running"]
    assert mend() == []


def test_it_stays_while_a_stage_is_running_which_is_on_it(repository):
    artifacts.DVC_CLAIMS.parent.mkdir(exist_ok=True)
    artifacts.DVC_CLAIMS.write_text("")
    started = {"DVC_STAGE": "train@x", "DVC_ROOT": str(repository)}
    stage = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], env=os.environ | started,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    stage.stdout.readline()
    with pytest.raises(InputError, match=rf"train@x \(process {stage.pid}\) is running here"):
        mend()
    assert artifacts.DVC_CLAIMS.exists()
    stage.communicate(b"\n")
    assert mend()


def test_what_dvc_was_copying_is_removed(repository):
    names = [
        ".dvc/cache/files/md5/ab/.dk8-hJ_sP0aQ2w4E6r8t0A.tmp",
        "plots/.dk8-hJ_sP0aQ2w4E6r8t0A.tmp",
    ]
    for name in [*names, "plots/own.tmp"]:
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).touch()
    assert sorted(mend()) == [f"{n}: what DVC was copying when it ended; removed" for n in names]
    assert [p.name for p in (repository / "plots").iterdir()] == ["own.tmp"]
