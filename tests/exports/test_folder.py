import os
import subprocess

import pytest

from pipeline.errors import InputError
from pipeline.exports.folder import CARD, ROWS, open_folder
from tests.imports import ROOT


@pytest.fixture
def repository(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)
    (tmp_path / "repo/.gitignore").write_text("/private/\n")
    return tmp_path / "repo"


def fill(folder):
    (folder / ROWS).mkdir()
    (folder / ROWS / "hate.parquet").write_text("rows")
    (folder / CARD).write_text("card")


def test_it_is_the_owners_alone_even_where_it_was_not(tmp_path):
    (tmp_path / "out").mkdir(mode=0o755)
    folder = open_folder(tmp_path / "out", "dataset")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_earlier_export_makes_room(tmp_path):
    fill(open_folder(tmp_path / "out", "dataset"))
    folder = open_folder(tmp_path / "out", "dataset")
    assert [p.name for p in folder.iterdir()] == [".export.json"]


def test_nothing_else_is_overwritten(tmp_path):
    out = tmp_path / "out"
    fill(open_folder(out, "dataset"))
    with pytest.raises(InputError, match="holds an export of kind dataset"):
        open_folder(out, "redacted")
    (out / ROWS / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="1 files that no export wrote, first notes.txt"):
        open_folder(out, "dataset")
    assert (out / CARD).exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty, and no earlier export"):
        open_folder(tmp_path / "mine", "dataset")
    with pytest.raises(InputError, match="is a file"):
        open_folder(tmp_path / "mine/notes.txt", "dataset")


def test_what_git_would_track_is_refused(repository, tmp_path):
    for out in (repository / "export", repository, repository / "a/b/c"):
        with pytest.raises(InputError, match="git repository that does not ignore it"):
            open_folder(out, "redacted")
    (tmp_path / "link").symlink_to(repository)
    with pytest.raises(InputError, match="git repository"):
        open_folder(tmp_path / "link/export", "redacted")
    assert sorted(p.name for p in repository.iterdir()) == [".git", ".gitignore"]
    open_folder(repository / "private", "dataset")
    open_folder(repository / "private/deeper", "dataset")


def test_our_own_repository_takes_up_no_export():
    with pytest.raises(InputError, match="git repository"):
        open_folder(ROOT / "exported", "dataset")
    assert not (ROOT / "exported").exists()


def test_without_git_a_repository_is_refused(repository, monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(InputError, match="git repository"):
        open_folder(repository / "private", "dataset")
