"""Stages side by side against ``dvc repro``, on a real Ray."""

import shutil

import pytest
import yaml

from pipeline.cluster.connect import Needs
from pipeline.errors import InputError
from tests.cluster.runs import graph_of, is_up_to_date, lock, run, serially


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
