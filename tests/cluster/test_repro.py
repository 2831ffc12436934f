"""Stages side by side against ``dvc repro``, on a real Ray."""

import shutil
from contextlib import contextmanager

import pytest
import yaml
from dvc.repo import Repo

from pipeline.cluster.graph import Graph
from pipeline.cluster.order import Place
from pipeline.cluster.repro import Needs, check_needs, connect, repro
from pipeline.cluster.workspace import check_cache, copy_code
from pipeline.errors import InputError
from tests.imports import ROOT

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    """Two workers, for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        connect(None, 2, ROOT)
    yield
    ray.shutdown()


@contextmanager
def graph_of(project, targets=()):
    with Repo(str(project)) as repo, repo.lock:
        yield Graph(repo, targets), repo


def run(project, *targets, watch=lambda *_: None):
    code = project / ".checkpoints/cluster/code"
    shutil.rmtree(code, ignore_errors=True)
    copy_code(project, code)
    with graph_of(project, targets) as (graph, repo):
        place = Place(str(code), str(project), repo.cache.local_cache_dir,
                      str(project / ".checkpoints/cluster/work"), {})  # fmt: skip
        expected = dict.fromkeys(graph, 1.0)
        return repro(graph, place, {name: Needs() for name in graph}, expected, watch)


def lock(project):
    return yaml.safe_load((project / "dvc.lock").read_text())


def is_up_to_date(project, *targets):
    with Repo(str(project)) as repo:
        return repo.status(list(targets) or None) == {}


def test_it_ends_as_dvc_repro_ends_and_only_what_changed_runs_again(project, cluster, monkeypatch):
    serial = shutil.copytree(project, project.parent / "serial")
    with monkeypatch.context() as patch, Repo(str(serial)) as repo:
        patch.chdir(serial)
        repo.reproduce()
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


def test_what_a_killed_run_had_made_but_not_put_into_the_lock_is_not_made_again(project, cluster):
    (project / "step.py").write_text(
        (project / "step.py").read_text() + f"open({str(project / 'ran')!r}, 'a').write('.')"
    )
    run(project)
    before = lock(project)
    kept = {"whole": before["stages"]["whole"]}
    (project / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": kept}))
    report = run(project, "part")
    assert {name for name, outcome in report.ran.items() if outcome.cached} == {"part@x", "part@y"}
    assert (project / "ran").read_text() == "...."
    run(project)
    assert lock(project) == before


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


def test_what_no_node_has_and_a_closed_cache_are_errors_before_any_stage(tmp_path):
    nodes = [{"CPU": 4.0, "memory": 8 * 2.0**30}]
    check_needs({"small": Needs(4, 0, 8)}, nodes)
    with pytest.raises(InputError, match="train asks for 1 CPUs, 1 GPUs and 2 GiB .*no node has"):
        check_needs({"train": Needs(1, 1, 2)}, nodes)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cache .* cannot be written to on"):
        check_cache(tmp_path / "cache")


def test_an_unknown_target_is_an_error(project):
    with pytest.raises(InputError, match="dvc: .*nothing"), graph_of(project, ["nothing"]):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "host:port"])
def test_a_cluster_that_does_not_answer_is_an_error(address, tmp_path):
    with pytest.raises(InputError, match="nothing answers at .*is the Ray cluster there"):
        connect(address, None, tmp_path)
