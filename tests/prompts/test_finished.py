import stat

import pytest

from pipeline.prompts.finished import Batch, Finished, split_evenly
from pipeline.records import PromptPair

ROW = PromptPair("id", "c", "k", "train", "u", "s", "e", "m", "r", "t", 1)


def test_a_batch_comes_back_as_it_was(tmp_path):
    finished = Finished(tmp_path, "a")
    finished.save(3, Batch([ROW], {"length": 2}, {"refusal": 1}))
    assert Finished(tmp_path, "a").load(3) == Batch([ROW], {"length": 2}, {"refusal": 1})
    assert finished.load(2) is None


def test_another_runs_batches_are_removed(tmp_path):
    Finished(tmp_path, "a").save(0, Batch([ROW], {}, {}))
    assert Finished(tmp_path, "b").load(0) is None
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_its_folders_are_private(tmp_path):
    Finished(tmp_path / "prompts", "a")
    for folder in (tmp_path / "prompts", tmp_path / "prompts/a"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pairs": [{}], "faults": {}}', '{"pairs": []}'])
def test_a_damaged_batch_counts_as_none(tmp_path, text):
    finished = Finished(tmp_path, "a")
    (tmp_path / "a/batch-00000.json").write_text(text)
    assert finished.load(0) is None


def test_split_evenly_by_hand():
    assert split_evenly(list("abcde"), 2) == [["a", "b"], ["c", "d"], ["e"]]
    assert split_evenly([], 2) == []
