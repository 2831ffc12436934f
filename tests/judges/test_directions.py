import numpy as np
import pytest
import torch

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.judges.clip import ClipModel
from pipeline.judges.directions import TextDirections, category_texts
from pipeline.testbed import world


class FakeClip:
    """Knows three texts."""

    version = "clip@1"

    def embed_texts(self, texts):
        known = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}
        return torch.tensor([known[text] for text in texts])


def test_a_direction_is_the_unit_mean_of_its_texts():
    judge = TextDirections(FakeClip(), {"both": ["a", "b"], "one": ["c"]})
    [first, second] = judge.score(torch.tensor([[0.8, 0.6], [-1.0, 0.0]]))
    root = 2**0.5
    assert first == pytest.approx({"both": 140 / root, "one": 96.0}, rel=1e-5)
    assert second == pytest.approx({"both": -100 / root, "one": -60.0}, rel=1e-5)


def test_its_version_is_that_of_texts_and_clip():
    def version(**texts):
        return TextDirections(FakeClip(), texts).version

    assert version(x=["a", "b"]).endswith("@clip@1")
    assert len({version(x=["a", "b"]), version(x=["a"]), version(y=["a", "b"])}) == 3
    assert version(x=["a", "b"]) == version(x=["a", "b"])


def test_texts_of_categories():
    terms = {"hate": ["one", "two"], "violence": ["three"]}
    assert category_texts(terms, "a picture with a {}", ["a picture"]) == {
        "hate": ["a picture with a one", "a picture with a two"],
        "violence": ["a picture with a three"], "none": ["a picture"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("terms", "message"),
    [({"hate": []}, "category 'hate': no concepts"), ({"none": ["x"]}, "category 'none': rename")],
)
def test_categories_that_cannot_be_looked_for_are_refused(terms, message):
    with pytest.raises(InputError, match=message):
        category_texts(terms, "{}", ["a"])


def test_the_bundled_clip_tells_the_categories_of_marks():
    clip = ClipModel(f"local-dir:{TESTBED / 'clip'}", None, 16)
    texts = category_texts(world.MARKS, "a red star with a {}", ["a red star"])
    rng = np.random.default_rng(0)
    marks = list(world.CATEGORY_OF)
    drawn = [world.render(world.sample_scene(rng, mark)) for mark in marks]
    rows = TextDirections(clip, texts).score(clip.embed_images(drawn))
    best = [max(world.MARKS, key=row.get) for row in rows]
    assert np.mean([b == world.CATEGORY_OF[m] for b, m in zip(best, marks, strict=True)]) > 0.95
