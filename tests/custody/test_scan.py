import os
from pathlib import Path

import pytest

from pipeline.custody.kinds import KEPT, UNKNOWN, UNSAFE
from pipeline.custody.repository import open_repository
from pipeline.custody.scan import ELSEWHERE, WORKSPACE, Found, files_below, scan, table
from pipeline.errors import InputError
from tests.conftest import png
from tests.custody.conftest import git


def found(path):
    with open_repository() as repository:
        return next((f for f in scan(repository) if f.path == Path(path)), None)


def test_pictures_where_none_should_be_are_found_and_what_git_tracks_is_not(repository):
    Path("notes").mkdir()
    Path("notes/picture").write_bytes(png("red").bytes)
    Path("notes/text").write_text("text")
    assert found("notes/picture").place == ELSEWHERE
    assert found("notes/picture").verdict == UNSAFE
    assert found("notes/text") is None
    git(repository, "add", "notes")
    assert found("notes/picture") is None


def test_environments_and_what_the_user_fetched_are_passed_over(repository):
    for folder in (".venv", "external"):
        Path(folder).mkdir()
        Path(folder, "logo.png").write_bytes(png("red").bytes)
    Path(".venv/pyvenv.cfg").touch()
    assert found(".venv/logo.png") is None
    assert found("external/logo.png") is None


def test_leftovers_of_an_older_pipeline_are_told_by_content(repository):
    Path("data/old").mkdir()
    Path("data/old/a.png").write_bytes(png("red").bytes)
    Path("data/old/b.txt").write_text("text")
    assert (found("data/old/a.png").place, found("data/old/a.png").verdict) == (WORKSPACE, UNSAFE)
    assert found("data/old/b.txt").verdict == UNKNOWN


def test_links_out_of_the_repository_are_unknown_and_others_are_as_their_place(repository):
    outside = repository.parent / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(png("red").bytes)
    Path("data/images/far").symlink_to(outside)
    Path("data/images/near").symlink_to(repository / "version")
    Path("models/near").symlink_to("nowhere")
    assert found("data/images/far").verdict == UNKNOWN
    assert found("data/images/far/a.png") is None
    assert found("data/images/near").verdict == UNSAFE
    assert found("models/near").verdict == KEPT


def test_a_folder_that_cannot_be_read_is_an_error(repository, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"data cannot be read \(Permission denied\)"):
        list(files_below(Path("data")))


def test_the_table_counts_files_and_bytes():
    some = [Found(Path("a"), WORKSPACE, KEPT, "models", 1_500_000)] * 2
    some.append(Found(Path("b"), WORKSPACE, UNSAFE, "images", 1000))
    first, second = table(some).splitlines()
    assert first.split() == ["unsafe", "images", "workspace", "1", "files", "0.001", "MB"]
    assert second.split() == ["kept", "models", "workspace", "2", "files", "3.000", "MB"]
    assert table([]) == "nothing"
