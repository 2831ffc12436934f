"""Where the numbers of a report come from."""

import hashlib
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pipeline.artifacts import STAGE_TIMES
from pipeline.times import recorded_seconds

PACKAGES = ("torch", "diffusers", "peft", "open_clip_torch", "nudenet", "dvc")


def provenance(params: Path, compared: Mapping[str, object]) -> dict[str, str]:
    """Label to value: git revision, hash of the params, time, rule, judges and versions.

    ``compared`` is ``metrics/comparisons.json``.
    """
    digest = hashlib.sha256(Path(params).read_bytes()).hexdigest()
    return {
        "git revision": _git_revision(), "params.yaml": f"sha256 {digest[:16]}",
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "rule": str(compared["rule"]),
        **{f"judge {name}": what for name, what in sorted(compared["judges"].items())},
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }  # fmt: skip


def stage_times() -> dict[str, list[float]]:
    """Stage to the seconds of its instances' last runs here, the longest first.

    What never ran here, but came from DVC's cache, is not among them.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for file in sorted(STAGE_TIMES.glob("*.json")):
        # DVC's names: "train_expert@hate", "studies/dvc.yaml:train_part@hate-pairs-10"
        stage, _, _ = file.stem.rpartition(":")[2].partition("@")
        found[stage].append(recorded_seconds(file.stem))
    return dict(sorted(found.items(), key=lambda pair: (-sum(pair[1]), pair[0])))


def seconds_in_all(times: Mapping[str, Sequence[float]]) -> str:
    """The sum over all stages, in words."""
    return f"{sum(map(sum, times.values())):.0f} s in all"


def _git_revision() -> str:
    """The checked-out commit, and whether tracked files differ from it."""
    shown = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True,
                           text=True)  # fmt: skip
    if shown.returncode:
        return "unknown (no git repository here)"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], capture_output=True).returncode
    return shown.stdout.strip() + (", with changes" if changed else "")
