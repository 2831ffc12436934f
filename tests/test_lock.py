"""The committed dvc.lock is of the committed code, files and settings, and of no earlier ones.

Of what it lists: what dvc.yaml lists beyond it, `dvc status` tells.
"""

import hashlib
import json
import subprocess
from functools import cache

import pytest
from dvc.utils.serialize._yaml import parse_yaml

from tests.committed import of_committed_results
from tests.imports import ROOT

pytestmark = [
    of_committed_results,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says which files are committed"),
]


def git_files(*options):
    done = subprocess.run(
        ["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\0")) - {""}


@cache
def seen_by_dvc():
    """The committed files, but for those that .dvcignore names."""
    return git_files() - git_files("--cached", "--ignored", "--exclude-from=.dvcignore")


@cache
def hash_of(path):
    """The hash by which DVC knows a committed file or folder; None for what is not committed."""
    if path in seen_by_dvc():
        return hashlib.md5((ROOT / path).read_bytes()).hexdigest()
    inside = sorted(file for file in seen_by_dvc() if file.startswith(f"{path}/"))
    listing = [{"md5": hash_of(file), "relpath": file.removeprefix(f"{path}/")} for file in inside]
    listed = json.dumps(listing, sort_keys=True).encode()
    return f"{hashlib.md5(listed).hexdigest()}.dir" if inside else None


def value(section, key):
    """What a file of parameters has under a dotted key; None where it has nothing."""
    for name in key.split("."):
        section = (section or {}).get(name)
    return section


def read(path):
    """As DVC reads it."""
    return parse_yaml((ROOT / path).read_text(), path)


def test_the_lock_is_of_this_code_and_of_these_settings():
    params, checked, stale = read("params.yaml"), set(), set()
    for name, stage in read("dvc.lock")["stages"].items():
        deps = {d["path"]: d["md5"] for d in stage["deps"] if hash_of(d["path"])}
        changed = [path for path, locked in deps.items() if locked != hash_of(path)]
        for file, locked in stage.get("params", {}).items():
            assert file == "params.yaml"
            changed += [key for key in locked if locked[key] != value(params, key)]
        checked |= deps.keys()
        if changed:
            stale.add(f"{name.partition('@')[0]}: {', '.join(changed)}")
    assert {"LICENSE", "assets/testbed/sd", "pipeline/training", "stages/ship.py"} <= checked
    assert not stale, "\n".join([
        "dvc.lock is of other code or settings than these. Bring these stages up to date with "
        "`dvc repro`, or with `dvc commit` where their outputs cannot have changed:", *sorted(stale)
    ])  # fmt: skip
