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
        "batch": 2, "max_steps": 16, "checkpoint_every": 4, "checkpoints": 2, "log_every": 4
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    latents = encode_pairs([pair(k) for k in range(5)], ModelSource(MODEL), 2, BENIGN)
    save_latents(tmp_path / artifacts.latents("violence"), latents)
    return tmp_path


def digest(folder):
    file = folder / artifacts.expert("violence") / artifacts.LORA_FILE
    return hashlib.sha256(file.read_bytes()).hexdigest()


def checkpoints(folder):
    return sorted((folder / artifacts.checkpoints("violence")).glob("step-*"))


def kill_after_two_checkpoints(folder):
    """Start the stage, and send SIGKILL once it has written them; returns the newest's step.

    The clock jumps back in between: the older one has a time in the far future.
    """
    stage = Started(folder, "train_expert", "violence")
    while len(checkpoints(folder)) < 2:
        assert stage.running()
        time.sleep(0.01)
    stage.kill()
    *_, older, newer = checkpoints(folder)
    os.utime(older, (4e9, 4e9))
    return int(newer.stem.removeprefix("step-"))


def test_training_killed_with_sigkill_ends_in_the_same_bytes(project):
    step = kill_after_two_checkpoints(project)
    assert not (project / artifacts.expert("violence")).exists()

    status, log = Started(project, "train_expert", "violence").end()
    assert status == 0, log
    assert f"at step {step}\n" in log
    assert not (project / artifacts.checkpoints("violence")).exists()
    resumed = digest(project)

    status, log = Started(project, "train_expert", "violence").end()  # from nothing
    assert status == 0, log
    assert "resuming" not in log
    assert digest(project) == resumed
