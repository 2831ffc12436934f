"""Tests of what is committed as results: they are of the committed settings and code alone."""

import subprocess

import pytest

from tests.imports import ROOT

INPUTS = ("params.yaml", "dvc.yaml", "studies/dvc.yaml", "pipeline", "stages", "assets",
          "benchmarks")  # fmt: skip


def _changed(*paths: str) -> list[str]:
    """Which of these files are not as committed; none where git cannot tell."""
    if not (ROOT / ".git").exists():  # a tarball, perhaps within somebody's repository
        return []
    status = ["git", "status", "--porcelain", "--", *paths]
    found = subprocess.run(status, cwd=ROOT, capture_output=True, text=True).stdout
    return [line[3:] for line in found.splitlines()]


_INPUTS, _METRICS = _changed(*INPUTS), _changed("metrics", "plots")
of_committed_results = pytest.mark.skipif(
    bool(_INPUTS),
    reason="these results are of the committed settings; yours differ: " + ", ".join(_INPUTS),
)
# the last digits of a run on another type of machine are others
of_committed_metrics = pytest.mark.skipif(
    bool(_METRICS), reason="these pages are of the committed metrics; a run has made others"
)
