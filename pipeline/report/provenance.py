"""Where the numbers of a report come from."""

import hashlib
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "diffusers", "peft", "open_clip_torch", "nudenet", "dvc")


def provenance(params: Path, summary: Mapping[str, object]) -> dict[str, str]:
    """Label to value: git revision, hash of the params, time, rule, judges and versions.

    ``summary`` is that of ``pipeline.evaluate.compare``.
    """
    digest = hashlib.sha256(Path(params).read_bytes()).hexdigest()
    return {
        "git revision": _git_revision(), "params.yaml": f"sha256 {digest[:16]}",
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "rule": str(summary["rule"]),
        **{f"judge {name}": what for name, what in sorted(summary["judges"].items())},
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }  # fmt: skip


def _git_revision() -> str:
    """The checked-out commit, and whether tracked files differ from it."""
    shown = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True,
                           text=True)  # fmt: skip
    if shown.returncode:
        return "unknown (no git repository here)"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], capture_output=True).returncode
    return shown.stdout.strip() + (", with changes" if changed else "")
