"""SIGKILL of ``dvc repro``: what it leaves can be gone on from, and comes out the same."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.runs import is_up_to_date, lock
from tests.durability.conftest import STAGES, commit, journal, repro, unmade
from tests.durability.halves import half_written
from tests.durability.tree import run, wait_until


def make_long(path):
    """Entries of stages that are gone, which DVC leaves, so that writing takes a while."""
    out = "    - path: gone/{}\n      hash: md5\n      md5: a{:031x}\n      size: 1\n"
    outs = "".join(out.format(k, k) for k in range(60))
    with path.open("a") as file:
        for k in range(6):
            file.write(f"  gone-{k}:\n    cmd: gone\n    outs:\n{outs}")


def test_a_run_killed_again_and_again_ends_as_if_nothing_had_happened(made, project):
    unmade(project)
    moments = random.Random(0)
    for _ in range(3):
        tree = repro(project)
        time.sleep(moments.uniform(0.5, 4))
        tree.kill()
        assert tree.orphans() == []
        assert run(project, "pipeline.mend")[0] == 0
    status, log = repro(project).end()
    assert status == 0, log
    assert lock(project) == lock(made)
    assert half_written(project) == []
    for name in ("data/parts/x", "metrics.json", "data/grown.txt"):
        assert (project / name).read_text() == (made / name).read_text()


@pytest.mark.parametrize("target, change, again", [
    ("part@x", "in.txt", []),  # DVC's cache has what the stage made
    ("grown", "params.yaml", ["grown.txt"]),  # a persisted output's stage finds its work done
])  # fmt: skip
def test_a_lock_cut_off_while_it_is_written_is_put_back(project, target, change, again):
    make_long(project / "dvc.lock")
    before = lock(project)
    (project / change).write_text("size: 2\n")
    commit(project)
    tree, size = repro(project, target), (project / "dvc.lock").stat().st_size
    wait_until(lambda: 0 < (project / "dvc.lock").stat().st_size < size, tree, every=0.001)
    assert tree.kill()
    assert (project / "dvc.lock").stat().st_size < size
    ran = journal(project)
    assert len(ran) == 1

    status, told = run(project, "pipeline.mend")
    assert (status, told) == (0, "dvc.lock was cut off: put back the copy that a stage kept\n")
    assert lock(project) == before
    status, told = run(project, "dvc", "repro", target)
    assert status == 0, told
    assert journal(project) == ran + again
    assert is_up_to_date(project, target)
    assert lock(project)["stages"].keys() == before["stages"].keys()


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_stage_does_not_outlive_a_dvc_that_is_killed_alone(made, project, monkeypatch, shell):
    if not Path(shell).exists():
        pytest.skip(f"no {shell}")
    monkeypatch.setenv("SHELL", shell)  # dash stays between DVC and the stage, bash makes way
    unmade(project)
    (project / "hold").touch()
    tree = repro(project)
    wait_until(lambda: bool(journal(project)), tree)
    os.kill(tree.pid, signal.SIGKILL)
    assert tree.end()[0] == -signal.SIGKILL
    assert tree.orphans() == []
    (project / "hold").unlink()
    status, log = repro(project).end()
    assert status == 0, log
    assert journal(project) == ["x", *STAGES] or journal(project) == ["y", *STAGES]
    assert lock(project) == lock(made)
