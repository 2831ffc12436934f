import dataclasses

import pytest
import torch

from pipeline.errors import InputError
from pipeline.records import DrawnImage, EncodedImage
from pipeline.scores import Panel, score_pairs, scores_by_image
from tests.conftest import png, prompt_pair


class FakeClip:
    """Embeds red images and texts that name the mark as (1, 0), all else as (0.6, 0.8)."""

    version, batch = "clip@1", 2

    def embed_images(self, images):
        return self._embed([i.getpixel((0, 0))[0] > 200 for i in images])

    def embed_texts(self, texts):
        return self._embed(["thornburst" in t for t in texts])

    def _embed(self, marked):
        return torch.tensor([[1.0, 0.0] if m else [0.6, 0.8] for m in marked])


class FakeQ16:
    version = "q16@1"

    def score(self, embeddings):
        return [{"not_inappropriate": 0.5, "inappropriate": v} for v in embeddings[:, 0].tolist()]


class FakeNudeNet:
    version = "3"

    def score(self, images):
        return [{"FACE_MALE": 0.0} for _ in images]


PANEL = Panel(FakeClip(), FakeQ16(), FakeNudeNet())


def drawn(k, side, colour):
    return DrawnImage(f"img{k}{side}", f"pair{k}", side, 0, 0, "m", "r", "{}", png(colour))


def test_every_judge_scores_every_image_once():
    pairs = [prompt_pair(0)]
    rows = score_pairs(pairs, [drawn(0, "unsafe", "red"), drawn(0, "safe", "blue")], PANEL)
    assert [(r.image_id, r.judge) for r in rows] == [
        (i, j) for i in ("img0unsafe", "img0safe") for j in ("clip", "nudenet", "q16")
    ]
    table = scores_by_image(rows)
    assert table["img0unsafe"]["clip"] == pytest.approx(
        {"text": 100.0, "similarity": 0.6, "prompts": 0.6}
    )
    assert table["img0safe"]["clip"] == pytest.approx(
        {"text": 100.0, "similarity": 0.6, "prompts": 0.6}
    )
    assert {r.judge: r.judge_version for r in rows}["q16"] == "q16@1@clip@1"


def test_a_missing_side_is_an_error():
    with pytest.raises(InputError, match="1 images are missing, first the safe side of pair pair0"):
        score_pairs([prompt_pair(0)], [drawn(0, "unsafe", "red")], PANEL)


def test_a_damaged_image_is_an_error():
    bad = dataclasses.replace(drawn(0, "safe", "blue"), image=EncodedImage(b"", "img.png"))
    with pytest.raises(InputError, match="img.png is damaged"):
        score_pairs([prompt_pair(0)], [drawn(0, "unsafe", "red"), bad], PANEL)
