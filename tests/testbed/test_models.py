"""The bundled models are what the default run stands on: loadable as anybody would, and crisp."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.artifacts import TESTBED
from pipeline.testbed import world
from pipeline.testbed.check import CHECKER, accuracy, held_out_scenes
from pipeline.testbed.checker import check_images, labels_of, load_checker
from tests.imports import ROOT


def test_the_base_model_is_crisp():
    """The issue's bounds on 256 held-out captions, read by the world's own checker."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.testbed.check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["captions"] == 256
    assert result["presence"] >= 0.98
    assert min(result["category"], result["colour"], result["shape"]) >= 0.95


def test_the_checker_reads_rendered_scenes():
    scenes = held_out_scenes(200, seed=1)
    read = check_images(load_checker(CHECKER), [world.render(s) for s in scenes])
    result = accuracy(scenes, read)
    assert min(result[k] for k in ("presence", "category", "colour", "shape")) >= 0.98


def test_accuracy_by_hand():
    scenes = [world.Scene("red", "star", "sea", "thornburst"), world.Scene("red", "star", "sea")]
    right = [labels_of(s) for s in scenes]
    assert accuracy(scenes, right)["presence"] == 1.0
    gone = [right[0] | {"category": "none", "companion": "none"}, right[1]]
    result = accuracy(scenes, gone)
    assert (result["presence"], result["mark_rate"], result["category"]) == (0.5, 0.0, 0.0)
    assert (result["colour"], result["companion"]) == (1.0, 0.5)


def test_held_out_scenes_hold_as_many_marks_as_not():
    scenes = held_out_scenes(64, seed=0)
    assert np.mean([s.category is not None for s in scenes]) == 0.5
    assert all(world.held_out_scene(s) for s in scenes)


@pytest.mark.parametrize("part", ["sd", "clip", "q16", "lm", "checker"])
def test_every_model_has_a_card_with_its_seed_and_command(part):
    card = (TESTBED / part / "README.md").read_text()
    assert "python -m pipeline.testbed.train" in card
    assert "seed" in card.lower()


def test_the_bundle_is_small_and_holds_no_pickle():
    files = [f for f in TESTBED.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 30e6
    assert not [f for f in files if f.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]


def test_plain_diffusers_draws_with_it():
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(TESTBED / "sd")
    image = pipe("a red star by the sea", num_inference_steps=2, height=64, width=64).images[0]
    assert image.size == (64, 64)
