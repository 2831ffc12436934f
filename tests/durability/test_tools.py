"""What the battery goes by: that it kills all, sees who survives, and knows a half from a whole."""

import sys
import time

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.durability.halves import half_written
from tests.durability.tree import Tree, wait_until

FAMILY = """
import subprocess, sys, time
code = "import time; print(1, flush=True); time.sleep(60)"
for _ in range(2):
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True,
                             stdout=subprocess.PIPE)
    child.stdout.readline()
print("all here", flush=True)
time.sleep(60)
"""


@pytest.fixture
def tree(tmp_path):
    """A process with two children in sessions of their own."""
    tree = Tree(tmp_path, [sys.executable, "-c", FAMILY], tmp_path / "log")
    wait_until(lambda: "all here" in tree.log.read_text(), tree)
    yield tree
    tree.kill()


def test_all_of_a_tree_is_killed(tree):
    assert tree.kill()
    assert tree.orphans() == []
    assert not tree.kill()  # it has ended


def test_who_survives_its_parent_is_found(tree):
    children = psutil.Process(tree.pid).children()
    psutil.Process(tree.pid).kill()
    while tree.running():
        time.sleep(0.01)
    orphans = tree.orphans(patience=0.5)
    assert {int(line.split()[0]) for line in orphans} == {child.pid for child in children}
    for child in children:
        child.kill()


@pytest.fixture
def whole(tmp_path):
    """A file of each kind that the pipeline writes."""
    pq.write_table(pa.table({"a": list(range(100))}), tmp_path / "a.parquet")
    save_file({"a": np.zeros(100)}, tmp_path / "a.safetensors")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)).save(
        tmp_path / "a.png"
    )
    for name, text in {
        "a.json": '{"a": 1}\n', "dvc.lock": "stages:\n  a: 1\n", "a.csv": "a,b\n1,2\n",
        "a.html": "<html></html>\n", "a.svg": "<svg></svg>", ".dvc/tmp/rwlock": "{}",
        ".dvc/cache/files/md5/90/0150983cd24fb0d6963f7d28e17f72": "abc",
        ".dvc/cache/runs/ab/abc/abcd": "cmd: a\n", ".checkpoints/cluster/logs/a.txt": "a",
        ".checkpoints/cluster/locks/a": "",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_whole_files_are_none(whole):
    assert half_written(whole) == []


def test_half_of_any_file_is_found(whole):
    files = [p for p in whole.rglob("*") if p.is_file() and "cluster" not in p.parts]
    assert len(files) == 11
    for path in files:
        text = path.read_bytes()
        path.write_bytes(text[:-2])
        assert [line.split(": ")[0] for line in half_written(whole)] == [
            path.relative_to(whole).as_posix()
        ]
        path.write_bytes(text)


@pytest.mark.parametrize("name", [
    "metrics/.a.json.partial", "data/images/x/.unfinished/batch", ".checkpoints/x/step-1",
    ".dvc/cache/files/md5/ab/.dk8-hJ_sP0aQ2w4E6r8t0A.tmp",
])  # fmt: skip
def test_what_an_unfinished_run_has_is_found(whole, name):
    (whole / name).parent.mkdir(parents=True)
    (whole / name).touch()
    assert [line.split(":")[0] for line in half_written(whole)] == [name]
