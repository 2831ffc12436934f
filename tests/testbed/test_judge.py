import os

import pytest

from pipeline.artifacts import TESTBED
from pipeline.testbed.judge import train_clip, train_q16

VAE = TESTBED / "sd" / "vae"


def clip(folder):
    train_clip(folder, VAE, scenes=4, steps=20, batch=2, seed=0)


def q16(folder):
    train_q16(folder, TESTBED / "clip", VAE, scenes=4, steps=1, seed=0)


@pytest.mark.parametrize(("train", "name", "before"), [
    (clip, "open_clip_model.safetensors", 0), (clip, "open_clip_config.json", 1),
    (q16, "prompts.safetensors", 0),
])  # fmt: skip
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, train, name, before):
    """With a disk that is full after so many files."""
    synced = []

    def full(*_):
        synced.append(1)
        if len(synced) > before:
            raise OSError

    (tmp_path / name).write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        train(tmp_path)
    assert (tmp_path / name).read_text() == "old"
    assert not list(tmp_path.glob(".*.partial"))
