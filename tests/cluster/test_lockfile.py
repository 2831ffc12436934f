from copy import deepcopy

import pytest
from dvc.utils.serialize import dump_yaml, load_yaml, modify_yaml

from pipeline.cluster.lockfile import LockFile
from tests.imports import ROOT

NEW = {
    "cmd": "python -m stages.new \"a b\" && echo 'c' : d", "deps": [{"path": "a", "md5": "1e10"}],
    "params": {"params.yaml": {"a": None, "b": 1e-05, "c": "word " * 40, "d": [], "e": {}}},
    "outs": [{"path": "data/ü", "hash": "md5", "md5": "01234567890123456789012345678901"}],
}  # fmt: skip


def as_dvc_writes(path, entries):
    """What DVC does with a lock file, but for its checks."""
    with modify_yaml(path) as data:
        if not data:
            data["schema"] = "2.0"
        data["stages"] = data.get("stages", {})
        data["stages"].update(entries)
    return path.read_text()


@pytest.fixture(params=["some", "none"])
def paths(request, tmp_path):
    """Two copies of a part of dvc.lock with long lines, or names of two that are not there."""
    paths = tmp_path / "ours", tmp_path / "dvc's"
    if request.param == "some":
        whole = load_yaml(ROOT / "dvc.lock")
        names = ("ship", "sample_benchmark@negative_prompt", "evaluate@base")
        for path in paths:
            dump_yaml(path, whole | {"stages": {name: whole["stages"][name] for name in names}})
    return paths


def test_the_text_is_dvcs_own(paths):
    ours, dvcs = paths
    lock = LockFile(ours)
    lock.put("new@x", NEW)
    lock.write()
    assert ours.read_text() == as_dvc_writes(dvcs, {"new@x": NEW})
    changes = {name: deepcopy(NEW) | {"cmd": name} for name in ("new@x", "new", "ship")}
    for name, entry in changes.items():
        lock.put(name, entry)
    lock.write()
    assert ours.read_text() == as_dvc_writes(dvcs, deepcopy(changes))


def test_a_lock_without_stages_stays_one(tmp_path):
    path = tmp_path / "dvc.lock"
    path.write_text("schema: '2.0'\nstages: {}\n")
    LockFile(path).write()
    assert path.read_text() == "schema: '2.0'\nstages: {}\n"
