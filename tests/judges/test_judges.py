"""The three judges on real models: NudeNet's own weights, the bundled CLIP and Q16 vectors."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.judges.clip import ClipModel
from pipeline.judges.nudenet import CLASSES, NudeNet
from pipeline.judges.q16 import Q16
from pipeline.testbed import world
from tests.conftest import png


@pytest.fixture(scope="module")
def clip():
    return ClipModel(f"local-dir:{TESTBED / 'clip'}", None, 16)


@pytest.fixture(scope="module")
def nudenet():
    return NudeNet()


def scenes(companions, seed=0):
    rng = np.random.default_rng(seed)
    return [world.sample_scene(rng, c) for c in companions]


def test_q16_by_hand(tmp_path):
    save_file({"prompts": torch.tensor([[2.0, 0.0], [0.0, 0.5]])}, tmp_path / "q.safetensors")
    q16 = Q16(tmp_path / "q.safetensors")
    row = q16.score(torch.tensor([[0.6, 0.8]]))[0]
    assert row == pytest.approx({"not_inappropriate": 60.0, "inappropriate": 80.0})


def test_q16_vectors_of_another_space_are_refused(tmp_path):
    save_file({"prompts": torch.ones(1, 2, 3)}, tmp_path / "q.safetensors")
    with pytest.raises(InputError, match="width 3, judges.clip embeds to 2"):
        Q16(tmp_path / "q.safetensors").score(torch.ones(1, 2))


def test_a_missing_or_wrong_vector_file_is_named(tmp_path):
    with pytest.raises(InputError, match="judges.q16 .*none.safetensors"):
        Q16(tmp_path / "none.safetensors")
    save_file({"other": torch.ones(1)}, tmp_path / "q.safetensors")
    with pytest.raises(InputError, match="'prompts'"):
        Q16(tmp_path / "q.safetensors")


def test_clip_tells_captions_apart(clip):
    drawn = scenes([*world.COMPANIONS, *world.LOOKALIKES])
    images = clip.embed_images([world.render(s) for s in drawn])
    texts = clip.embed_texts([world.caption(s) for s in drawn])
    assert torch.allclose(images.norm(dim=1), torch.ones(len(drawn)), atol=1e-5)
    best = (images @ texts.T).argmax(1)
    assert (best == torch.arange(len(drawn))).float().mean() > 0.9


def test_the_batch_does_not_change_a_score(clip):
    images = [world.render(s) for s in scenes(list(world.CATEGORY_OF)[:20])]
    together = clip.embed_images(images)
    alone = torch.cat([clip.embed_images([i]) for i in images[:3]])
    assert torch.allclose(together[:3], alone, atol=1e-5)


def test_q16_finds_marks_and_spares_lookalikes(clip):
    q16 = Q16(TESTBED / "q16" / "prompts.safetensors")
    marks = scenes(list(world.CATEGORY_OF) * 2)
    benign = scenes([*world.COMPANIONS, *world.LOOKALIKES, None] * 4)
    rows = q16.score(clip.embed_images([world.render(s) for s in [*marks, *benign]]))
    flagged = [r["inappropriate"] > r["not_inappropriate"] for r in rows]
    assert np.mean(flagged[: len(marks)]) > 0.97
    assert np.mean(flagged[len(marks) :]) < 0.03


def test_an_unknown_clip_model_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot load judges.clip 'local-dir:.*none'"):
        ClipModel(f"local-dir:{tmp_path / 'none'}", None, 1)


def test_a_clip_folder_without_weights_never_becomes_a_random_judge(tmp_path):
    for file in (TESTBED / "clip").iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    with pytest.raises(InputError, match="cannot load judges.clip"):
        ClipModel(f"local-dir:{tmp_path}", None, 1)


def test_nudenet_scores_every_class_of_a_plain_image(nudenet):
    assert nudenet.score([png("blue").bytes]) == [dict.fromkeys(CLASSES, 0.0)]


def test_nudenets_own_detections_are_kept(nudenet, monkeypatch):
    found = [{"class": "FACE_MALE", "score": s, "box": [0, 0, 1, 1]} for s in (0.4, 0.7)]
    monkeypatch.setattr(nudenet._detector, "detect", lambda _: found)
    assert nudenet.score([b""])[0]["FACE_MALE"] == 0.7


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_raises(nudenet, monkeypatch, score):
    found = [{"class": "FACE_MALE", "score": score, "box": [0, 0, 1, 1]}]
    monkeypatch.setattr(nudenet._detector, "detect", lambda _: found)
    with pytest.raises(ValueError, match="NudeNet returned score"):
        nudenet.score([b""])


def test_a_throwing_detector_is_not_a_safe_image(nudenet):
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever OpenCV raises
        nudenet.score([b"not an image"])
