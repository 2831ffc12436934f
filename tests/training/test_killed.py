"""A stage killed with SIGKILL goes on where it was, and ends in the same bytes."""

import copy
import hashlib
import os
import time

import pytest
import yaml

from pipeline import artifacts
from pipeline.encode import encode_pairs
from pipeline.latents import save_latents
from pipeline.sources import ModelSource
from tests.imports import ROOT
from tests.started import Started
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
        "batch": 2, "max_steps": 16, "checkpoint_every": 4, "log_every": 4
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    latents = encode_pairs([pair(k) for k in range(5)], ModelSource(MODEL), 2, BENIGN)
    save_latents(tmp_path / artifacts.latents("violence"), latents)
    return tmp_path


def digest(folder):
    file = folder / artifacts.expert("violence") / artifacts.LORA_FILE
    return hashlib.sha256(file.read_bytes()).hexdigest()


def kill_after_a_checkpoint(folder):
    """Start the stage, and send SIGKILL once it has written a checkpoint."""
    stage = Started(folder, "train_expert", "violence")
    while not any((folder / artifacts.checkpoints("violence")).glob("step-*")):
        assert stage.running()
        time.sleep(0.01)
    stage.kill()


def set_clock_back(folder):
    """The oldest checkpoint has the newest time, as under a clock that jumped in between."""
    files = sorted((folder / artifacts.checkpoints("violence")).glob("step-*"))
    for age, file in enumerate(files):
        os.utime(file, (4e9 - age, 4e9 - age))


def test_training_killed_with_sigkill_ends_in_the_same_bytes(project):
    kill_after_a_checkpoint(project)
    set_clock_back(project)
    assert not (project / artifacts.expert("violence")).exists()

    status, log = Started(project, "train_expert", "violence").end()
    assert status == 0, log
    assert "resuming" in log
    assert not (project / artifacts.checkpoints("violence")).exists()
    resumed = digest(project)

    status, log = Started(project, "train_expert", "violence").end()  # from nothing
    assert status == 0, log
    assert "resuming" not in log
    assert digest(project) == resumed
