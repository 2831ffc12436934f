import shutil
from pathlib import Path

import pytest

from tests.conftest import png
from tests.custody.conftest import git


def test_a_repository_that_is_as_it_must_be_has_no_faults(repository, custody):
    status, said = custody("check")
    assert status == 0, said


@pytest.mark.parametrize("folder", ["data", "report", ".dvc/cache", "external"])
def test_a_folder_that_others_may_enter_is_a_fault(repository, custody, folder):
    Path(folder).mkdir(exist_ok=True)
    Path(folder).chmod(0o750)
    status, said = custody("check")
    assert status == 1
    assert f"{folder} has mode 0750" in said
    assert "1 faults" in said
    assert Path(folder).stat().st_mode & 0o777 == 0o750  # it is told, not mended


def test_a_folder_that_git_does_not_ignore_is_a_fault(repository, custody):
    lines = Path(".gitignore").read_text().splitlines()
    Path(".gitignore").write_text("\n".join(line for line in lines if line != "/report/"))
    status, said = custody("check")
    assert (status, "git does not ignore report: add /report/" in said) == (1, True)


def test_a_tracked_file_and_one_of_git_s_history_are_faults(repository, custody):
    shard = "data/images/violence/shard-00000.parquet"
    git(repository, "add", "--force", shard)
    assert "git tracks 1 files in data" in custody("check")[1]
    git(repository, "commit", "--quiet", "-m", "oops")
    git(repository, "rm", "--quiet", "--cached", shard)
    git(repository, "commit", "--quiet", "-m", "not seen any more")
    status, said = custody("check")
    assert (status, "git's history holds 1 files of data" in said) == (1, True)
    assert "git tracks" not in said


def test_a_linked_folder_and_a_picture_in_a_wrong_place_are_faults(repository, custody):
    Path("picture.png").write_bytes(png("red").bytes)
    shutil.move("report", "../report")
    Path("report").symlink_to("../report")
    status, said = custody("check")
    assert status == 1
    assert "picture.png holds images, where the pipeline writes none" in said
    assert "report is a link" in said


def test_it_is_run_at_the_root_of_a_repository(repository, custody, tmp_path, monkeypatch):
    monkeypatch.chdir("data")
    assert f"run this in {repository}" in custody("check")[1]
    monkeypatch.chdir(tmp_path)
    status, said = custody("check")
    assert (status, "no DVC repository is here" in said) == (1, True)
