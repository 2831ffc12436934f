"""Runs of the small project on the Ray that is there."""

import shutil
import subprocess
import sys
from contextlib import contextmanager

import yaml
from dvc.repo import Repo

from pipeline.cluster.connect import Needs
from pipeline.cluster.graph import Graph
from pipeline.cluster.order import Place
from pipeline.cluster.repro import repro
from pipeline.cluster.workspace import copy_code


@contextmanager
def graph_of(project, targets=(), remote=None):
    with Repo(str(project)) as repo, repo.lock:
        yield Graph(repo, targets, remote), repo


def place_of(project, repo, **changes):
    """With DVC's cache and workspaces in the project, as on one machine."""
    values = {
        "code": str(project / ".checkpoints/cluster/code"), "root": str(project),
        "cache": repo.cache.local_cache_dir, "work": str(project / ".checkpoints/cluster/work"),
        "environment": {},
    }  # fmt: skip
    return Place(**values | changes)


def run(project, *targets, watch=lambda *_: None, needs=None, remote=None, **place):
    code = project / ".checkpoints/cluster/code"
    shutil.rmtree(code, ignore_errors=True)
    copy_code(project, code)
    with graph_of(project, targets, remote) as (graph, repo):
        asked = {name: (needs or {}).get(name.partition("@")[0], Needs()) for name in graph}
        return repro(graph, place_of(project, repo, **place), asked, dict.fromkeys(graph, 1.0),
                     watch, lambda *_: None)  # fmt: skip


def lock(project):
    return yaml.safe_load((project / "dvc.lock").read_text())


def is_up_to_date(project, *targets):
    with Repo(str(project)) as repo:
        return repo.status(list(targets) or None) == {}


def serially(project):
    """A copy of the project, brought up to date by `dvc repro`."""
    copy = shutil.copytree(project, project.parent / "serial")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=copy, check=True)
    return copy
