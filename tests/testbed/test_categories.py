import csv
import os

import pytest

from pipeline.artifacts import TESTBED
from pipeline.testbed.categories import benchmark_rows, write_benchmarks


def test_benchmarks_are_those_that_are_bundled(tmp_path):
    write_benchmarks(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}.csv" for name in benchmark_rows()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (TESTBED / "benchmarks" / path.name).read_bytes()
    with (tmp_path / "heldout.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == benchmark_rows()["heldout"]


def test_a_failed_write_leaves_the_old_benchmark(tmp_path, monkeypatch):
    def full(*_):
        raise OSError

    (tmp_path / "heldout.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_benchmarks(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["heldout.csv"]
    assert (tmp_path / "heldout.csv").read_text() == "old"
