"""Tests of what is committed as results: they are of the committed settings and code alone."""

import subprocess

import pytest

from tests.imports import ROOT

INPUTS = ("params.yaml", "dvc.yaml", "studies/dvc.yaml", "pipeline", "stages", "assets",
          "benchmarks")  # fmt: skip


def _changed() -> list[str]:
    """Which inputs of the results are not as committed; none where git cannot tell."""
    if not (ROOT / ".git").exists():  # a tarball, perhaps within somebody's repository
        return []
    status = ["git", "status", "--porcelain", "--", *INPUTS]
    found = subprocess.run(status, cwd=ROOT, capture_output=True, text=True).stdout
    return [line[3:] for line in found.splitlines()]


_CHANGED = _changed()
of_committed_results = pytest.mark.skipif(
    bool(_CHANGED),
    reason="these results are of the committed settings; yours differ: " + ", ".join(_CHANGED),
)
