"""A stage killed with SIGKILL goes on where it was, and ends in the same bytes."""

import copy
import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from pipeline import artifacts
from pipeline.encode import encode_pairs
from pipeline.latents import save_latents
from pipeline.sources import ModelSource
from tests.imports import ROOT
from tests.test_encode import BENIGN, pair

MODEL = str(ROOT / artifacts.TESTBED / "sd")


@pytest.fixture
def project(tmp_path, default_params):
    """A folder with a small params.yaml and latents of one category, as a stage expects it."""
    params = copy.deepcopy(default_params)
    params["base_model"]["path"] = MODEL
    params["pairs"]["min_pairs"] = 8
    params["merge"]["calibration_prompts"] = 2
    params["experts"]["lora"]["null_prompts"] = 2
    params["experts"]["dpo"]["fixed_draws"] = 2
    params["experts"]["watch"]["held_out"] = 1
    params["experts"]["optim"] |= {
        "batch": 2, "max_steps": 40, "checkpoint_every": 4, "log_every": 4
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    latents = encode_pairs([pair(k) for k in range(5)], ModelSource(MODEL), 2, BENIGN)
    save_latents(tmp_path / artifacts.latents("violence"), latents)
    return tmp_path


def environment():
    return os.environ | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""
    }  # fmt: skip


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train_expert", "violence"], cwd=folder, env=environment(),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def digest(folder):
    file = folder / artifacts.expert("violence") / artifacts.LORA_FILE
    return hashlib.sha256(file.read_bytes()).hexdigest()


def kill_after_a_checkpoint(folder):
    """Start the stage, and send SIGKILL once it has written a checkpoint."""
    process = start(folder)
    deadline = time.monotonic() + 120
    while not any((folder / artifacts.checkpoints("violence")).glob("step-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_training_killed_with_sigkill_ends_in_the_same_bytes(project):
    kill_after_a_checkpoint(project)
    assert not (project / artifacts.expert("violence")).exists()

    process = start(project)
    _, log = process.communicate()
    assert process.returncode == 0, log
    assert "resuming" in log
    assert not (project / artifacts.checkpoints("violence")).exists()
    resumed = digest(project)

    process = start(project)  # from nothing
    _, log = process.communicate()
    assert process.returncode == 0, log
    assert "resuming" not in log
    assert digest(project) == resumed
