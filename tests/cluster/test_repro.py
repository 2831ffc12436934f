"""Stages side by side against ``dvc repro``, on a real Ray."""

import dataclasses
import os
import shutil
import signal
import sys

import pytest
import yaml

from bench.cluster import make_project
from pipeline.cluster import repro as cluster_repro
from pipeline.cluster.command import execute
from pipeline.cluster.connect import Needs
from pipeline.errors import InputError
from tests.cluster.runs import graph_of, is_up_to_date, lock, place_of, run, serially
from tests.durability.tree import Tree, wait_until
from tests.imports import ROOT


def test_it_ends_as_dvc_repro_ends_and_only_what_changed_runs_again(project, cluster):
    serial = serially(project)
    together = []
    report = run(project, watch=lambda running, _: together.append(set(running)))
    assert report.ran.keys() == {"part@x", "part@y", "whole", "grown"}
    assert {"part@x", "part@y"} in together
    assert "wrote data/parts/x" in report.ran["part@x"].log
    assert lock(project) == lock(serial)
    assert is_up_to_date(project)
    for name in ("data/parts/x", "metrics.json", "data/grown.txt"):
        assert (project / name).read_text() == (serial / name).read_text()
    assert not any((project / ".checkpoints/cluster/work").iterdir())

    (project / "params.yaml").write_text("size: 2\n")
    again = run(project)
    assert again.ran.keys() == {"grown"}
    assert set(again.unchanged) == {"part@x", "part@y", "whole"}
    assert is_up_to_date(project)
    assert run(project, "whole").unchanged == again.unchanged

    before = lock(project)
    for made in ("data", ".dvc/cache", "metrics.json"):  # as in a fresh clone
        path = project / made
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(project).ran.keys() == report.ran.keys()
    assert lock(project) == before
    assert is_up_to_date(project)


def test_a_stage_whose_worker_is_killed_goes_on_where_it_was(project, cluster):
    (project / "in.txt").write_text("dies\n")
    (project / "step.py").write_text(f"""
import os, pathlib, signal, sys, time
target = pathlib.Path(sys.argv[2])
unfinished = pathlib.Path(".checkpoints/half")
if target.name == "x" and not unfinished.exists():
    unfinished.parent.mkdir()
    unfinished.write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    pathlib.Path({str(project)!r}, "orphan").touch()
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text("whole")
""")
    report = run(project, "part")
    assert report.ran.keys() == {"part@x", "part@y"}
    assert (project / "data/parts/x").read_text() == "whole"
    assert is_up_to_date(project, "part")
    assert not (project / "orphan").exists()


def test_a_failed_stage_leaves_out_what_needs_it_and_nothing_else(project, cluster):
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text())
    pipeline["stages"]["bad"] = {
        "cmd": "echo what is wrong && exit 3", "deps": ["data/parts/x"], "outs": ["data/bad"]
    }  # fmt: skip
    pipeline["stages"]["after"] = {
        "cmd": "python step.py data/bad data/after", "deps": ["data/bad"], "outs": ["data/after"]
    }  # fmt: skip
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    report = run(project)
    assert report.failed == {"bad": "ended with status 3:\nwhat is wrong"}
    assert report.left_out == ["after"]
    assert report.ran.keys() == {"part@x", "part@y", "whole", "grown"}
    assert "bad" not in lock(project)["stages"]


def test_inputs_that_only_this_folder_has_are_brought(project, cluster):
    (project / "own").mkdir()
    (project / "own/file").write_text("own\n")
    pipeline = {"stages": {"reads": {
        "cmd": "python step.py own data/read", "deps": ["own"], "outs": ["data/read"]
    }}}  # fmt: skip
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    run(project)
    assert (project / "data/read").read_text() == "own\nread\n"


def test_what_a_failed_run_left_is_not_taken_for_the_code_of_the_next(project, cluster):
    (project / "own").mkdir()
    (project / "own/file").write_text("old\n")
    (project / "code").mkdir()
    (project / "code/old.py").touch()
    pipeline = {"stages": {"reads": {
        "cmd": "python step.py own data/read", "deps": ["own", "code"], "outs": ["data/read"]
    }}}  # fmt: skip
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    step = (project / "step.py").read_text()
    (project / "step.py").write_text("raise SystemExit(1)")
    assert run(project).failed
    (project / "step.py").write_text(step)
    (project / "code/old.py").rename(project / "code/new.py")
    (project / "own/file").write_text("new\n")
    run(project)
    assert (project / "data/read").read_text() == "new\nread\n"
    assert is_up_to_date(project)


def test_an_unknown_target_is_an_error(project):
    with pytest.raises(InputError, match="dvc: .*nothing"), graph_of(project, ["nothing"]):
        pass


def test_what_the_cache_of_runs_has_is_not_run_again(project, cluster):
    serially(project)
    run(project)
    before = lock(project)
    (project / "in.txt").write_text("other\n")
    run(project)
    (project / "in.txt").write_text("in\n")
    again = run(project)
    assert set(again.restored) == {"part@x", "part@y", "whole"}
    assert again.ran.keys() == {"grown"}  # DVC keeps no runs of stages with persisted outputs
    assert lock(project) == before
    assert is_up_to_date(project)

    (project / "dvc.lock").unlink()  # as if killed before it was written
    assert set(run(project).restored) == {"part@x", "part@y", "whole"}
    assert lock(project)["stages"] == before["stages"]


def test_a_training_has_the_processes_it_is_given(project, cluster):
    (project / "ranks.py").write_text("""
import os, pathlib
folder = pathlib.Path("data/ranks")
folder.mkdir(parents=True, exist_ok=True)
count, threads = os.environ.get("WORLD_SIZE"), os.environ["OMP_NUM_THREADS"]
(folder / os.environ.get("RANK", "alone")).write_text(f"of {count}, {threads} threads")
""")
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"ranks": {
        "cmd": r"\${LAUNCH:-python} ranks.py", "deps": ["ranks.py"], "outs": ["data/ranks"]
    }}}))  # fmt: skip
    report = run(project, needs={"ranks": Needs(cpus=2, processes=2)})
    assert not report.failed
    written = {file.name: file.read_text() for file in (project / "data/ranks").iterdir()}
    assert written == {"0": "of 2, 1 threads", "1": "of 2, 1 threads"}


def test_the_most_urgent_goes_first_also_when_it_became_ready_later(project, cluster):
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text())
    pipeline["stages"]["lone"] = {
        "cmd": "python step.py in.txt data/lone", "deps": ["in.txt"], "outs": ["data/lone"]
    }  # fmt: skip
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    both = dict.fromkeys(("part", "whole", "grown", "lone"), Needs(cpus=2))
    order = list(run(project, needs=both).ran)
    assert order.index("whole") < order.index("lone")  # which could have gone with the parts


def test_a_stage_that_no_node_is_left_for_fails_rather_than_waits(project, cluster, monkeypatch):
    (project / "step.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(cluster_repro, "CHECK_EVERY", 0.5)
    monkeypatch.setattr(cluster_repro, "living_nodes", lambda: [{"CPU": 1.0}])
    report = run(project, needs={"part": Needs(cpus=2)})
    assert report.failed.keys() == {"part@x", "part@y"}
    assert "asks for 2 CPUs, 0 GPUs and 0 GiB, which no node has that is left" in str(report.failed)
    assert set(report.left_out) == {"whole", "grown"}


def test_what_a_kill_left_of_a_workspace_goes_when_the_stage_needs_none(project, cluster):
    run(project)
    work = project / ".checkpoints/cluster/work"
    for name in ("part@x", "part@x:1+2", "part@y"):
        (work / name / "half").mkdir(parents=True)
    run(project, "part@x")
    assert [folder.name for folder in work.iterdir()] == ["part@y"]


@pytest.mark.parametrize("sees, told", [(True, "0,1"), (False, "")])
def test_a_stage_that_asks_for_no_gpus_sees_none_where_others_do(
    project, monkeypatch, tmp_path, sees, told
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (project / "step.py").write_text("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    with graph_of(project, ["part@x"]) as (graph, repo), (tmp_path / "lock").open("w") as lock:
        order = dataclasses.replace(graph.order("part@x"), sees_gpus=sees)
        place = place_of(project, repo)
        execute(graph._stages["part@x"], order, place, tmp_path / "log", lock.fileno())
    assert (tmp_path / "log").read_text() == f"{told}\n"


def test_an_interrupted_run_ends_at_once_and_leaves_nothing_running(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    make_project(tmp_path / "sleeps", 600)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "pipeline.cluster", "repro"]
    tree = Tree(tmp_path / "sleeps", command, tmp_path / "log")
    wait_until(lambda: "started on" in tree.log.read_text(), tree, every=0.1)
    os.kill(tree.pid, signal.SIGINT)
    status, log = tree.end()
    assert status == 130
    assert log.endswith("cluster: interrupted; the same command goes on from here\n")
    assert tree.orphans(patience=20) == []
