import errno
import json
import os
import stat

import pytest

from pipeline import storage
from pipeline.errors import InputError
from pipeline.records import PreferencePair, PromptPair, Score
from pipeline.storage import read_csv, read_json, read_table, write_csv
from tests.conftest import png, prompt_pair


def test_rows_come_back_as_they_were(tmp_path):
    rows = [Score("i", "q16", "v", {"b": 0.1, "a": -2.5}), Score("j", "q16", "v", {})]
    storage.write_rows(tmp_path / "s.parquet", Score, rows)
    assert storage.read_rows(tmp_path / "s.parquet", Score) == rows


def test_some_columns_come_without_the_others(tmp_path):
    rows = [Score(f"i{k}", "q16", "v", dict.fromkeys("ab"[:k], k / 2)) for k in range(3)]
    storage.write_rows(tmp_path / "s.parquet", Score, rows)
    cells = storage.stream_columns(tmp_path / "s.parquet", Score, ("scores", "image_id"))
    assert list(cells) == [({}, "i0"), ({"a": 0.5}, "i1"), ({"a": 1.0, "b": 1.0}, "i2")]
    with pytest.raises(InputError, match="lacks the columns concept"):
        list(storage.stream_columns(tmp_path / "s.parquet", PromptPair, ["concept"]))


def test_stored_rows_can_be_gone_through_again(tmp_path):
    rows = [prompt_pair(k) for k in range(3)]
    for number in range(3):
        storage.write_rows(tmp_path / f"{number}.parquet", PromptPair, rows[number : number + 1])
    stored = storage.StoredRows(tmp_path, PromptPair)
    assert list(stored) == list(stored) == rows


def test_equal_rows_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        storage.write_rows(tmp_path / name, PromptPair, [prompt_pair(k) for k in range(5)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_datasets_shows_the_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    scores = {"q16/inappropriate": 20.0}
    row = PreferencePair("p", "c", "k", "train", "safe", "unsafe", png("red"), png("blue"),
                         scores, scores, 0.5, 0.9, 3.0, "{}")  # fmt: skip
    storage.write_rows(tmp_path / "x.parquet", PreferencePair, [row])
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert loaded[0]["image_chosen"].getpixel((0, 0)) == (255, 0, 0)
    assert loaded[0]["image_rejected"].getpixel((0, 0)) == (0, 0, 255)


def test_a_truncated_table_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "t.parquet"
    storage.write_rows(path, PromptPair, [prompt_pair(0)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"t\.parquet is not a readable.*delete it and run"):
        storage.read_rows(path, PromptPair)


def test_a_table_of_other_rows_is_named_with_its_columns(tmp_path):
    storage.write_rows(tmp_path / "t.parquet", PromptPair, [prompt_pair(0)])
    with pytest.raises(InputError, match="lacks the columns image_id, judge.*it has pair_id"):
        storage.read_rows(tmp_path / "t.parquet", Score)


def test_a_missing_table_is_an_error_not_an_empty_one(tmp_path):
    path = tmp_path / "none.parquet"
    for read in (
        lambda: storage.read_rows(path, Score),
        lambda: storage.read_column(path, "image_id"),
        lambda: storage.read_columns(path, "image_id", "judge"),
        lambda: storage.holds_columns(path, Score),
    ):
        with pytest.raises(InputError, match="none.parquet is missing; `dvc repro` or `dvc pull`"):
            read()


def test_an_error_without_a_message_is_named_by_its_type(tmp_path, monkeypatch):
    def fail(path):
        raise OSError

    monkeypatch.setattr(storage.pq, "ParquetFile", fail)
    with pytest.raises(InputError, match=r"a is not a readable Parquet file \(OSError\); delete"):
        storage.read_rows(tmp_path / "a", Score)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "m.json"
    storage.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        storage.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        storage.write_json(tmp_path / "m.json", {"a": float("nan")})


def test_private_folders_are_closed_to_others(tmp_path):
    folder = storage.private_folder(tmp_path / "data" / "prompts")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_numbers_of_a_csv_come_back(tmp_path):
    write_csv(tmp_path / "a.csv", [{"step": 1, "x/y": 0.25}, {"step": 2, "x/y": 1e-7}])
    assert read_csv(tmp_path / "a.csv") == [{"step": 1.0, "x/y": 0.25}, {"step": 2.0, "x/y": 1e-7}]
    (tmp_path / "a.csv").write_text("step\nmany\n")
    with pytest.raises(InputError, match=r"a.csv is damaged .*many.*run `dvc repro`"):
        read_csv(tmp_path / "a.csv")
    with pytest.raises(InputError, match="b.csv is missing; `dvc repro` makes it$"):
        read_csv(tmp_path / "b.csv")


@pytest.mark.parametrize("read", [read_table, read_csv, read_json])
def test_a_file_that_is_not_utf_8_is_damaged(tmp_path, read):
    (tmp_path / "a").write_bytes(b'{"caf\xe9": 1}\n1\n')
    with pytest.raises(InputError, match="a is damaged .*0xe9.*; delete it and run `dvc repro`$"):
        read(tmp_path / "a")


@pytest.mark.parametrize("read", [read_table, read_csv])
def test_a_table_that_csv_cannot_read_is_damaged(tmp_path, read):
    (tmp_path / "a.csv").write_text("step\n" + 200_000 * "1")
    with pytest.raises(InputError, match="a.csv is damaged .*field limit.*; delete it and run"):
        read(tmp_path / "a.csv")


def test_a_table_without_rows_has_the_columns_that_it_is_told(tmp_path):
    write_csv(tmp_path / "a.csv", [], ["x", "y"])
    assert (tmp_path / "a.csv").read_text() == "x,y\n"
    with pytest.raises(ValueError, match="b.csv has no rows: its columns must be given"):
        write_csv(tmp_path / "b.csv", [])
    assert not (tmp_path / "b.csv").exists()
