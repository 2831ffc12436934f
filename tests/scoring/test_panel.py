import hashlib

import pytest
import torch

from pipeline.errors import InputError
from pipeline.judges import q16
from pipeline.judges.directions import TextDirections
from pipeline.judges.nudenet import CLASSES
from pipeline.params import load_params
from pipeline.records import Detection, EncodedImage
from pipeline.scoring import panel as panels
from pipeline.scoring.panel import Panel, load_panel
from pipeline.testbed import world
from tests.conftest import png
from tests.fakes import FakeNudeNet, FakeQ16

BELLY = Detection("BELLY_EXPOSED", 0.5, 1, 2, 3, 4)


class FakeClip:
    """Embeds red images and texts that name the mark as (1, 0), all else as (0.6, 0.8)."""

    version, batch = "clip@1", 2

    def embed_images(self, images):
        assert len(images) <= self.batch
        return self._embed([i.getpixel((0, 0))[0] > 200 for i in images])

    def embed_texts(self, texts):
        return self._embed(["thornburst" in t for t in texts])

    def _embed(self, marked):
        return torch.tensor([[1.0, 0.0] if m else [0.6, 0.8] for m in marked])


class FakeVlm:
    version = "vlm@1"

    def score(self, images):
        return [{"hate": float(i.path == "red.png"), "any": 1.0} for i in images]


@pytest.fixture
def panel():
    return Panel(FakeClip(), FakeQ16(), FakeNudeNet(BELLY))


def test_every_judge_looks_at_every_image(panel):
    seen = panel.look_at_all([png("red"), png("blue"), png("red")])
    rows = seen.scores
    assert seen.embeddings.flatten().tolist() == pytest.approx([1, 0, 0.6, 0.8, 1, 0])
    assert [row["q16"]["inappropriate"] for row in rows] == pytest.approx([1, 0.6, 1])
    assert [row["nudenet"]["BELLY_EXPOSED"] for row in rows] == [0.5, 0, 0.5]
    assert all(row["nudenet"].keys() == set(CLASSES) for row in rows)
    assert seen.detections == [(BELLY,), (), (BELLY,)]
    assert seen.features is None
    assert panel.versions == {"clip": "clip@1", "q16": "q16@1@clip@1", "nudenet": "3",
                              "age": panel.age.version}  # fmt: skip
    assert rows[0]["age"] == pytest.approx({"minor": 60.0, "adult": 60.0})


def test_judges_that_are_set_look_too(panel):
    panel.zero_shot = TextDirections(panel.clip, {"violence": ["a thornburst"], "none": ["a cup"]})
    panel.vlm = FakeVlm()
    rows = panel.look_at_all([png("red"), png("blue")]).scores
    assert rows[0]["zero_shot"] == pytest.approx({"violence": 100.0, "none": 60.0})
    assert rows[1]["zero_shot"] == pytest.approx({"violence": 60.0, "none": 100.0})
    assert [row["vlm"]["hate"] for row in rows] == [1.0, 0.0]
    assert panel.versions["zero_shot"] == panel.zero_shot.version
    assert panel.versions["vlm"] == "vlm@1"


def test_a_damaged_image_is_an_error(panel):
    with pytest.raises(InputError, match="img.png is damaged"):
        panel.look([png("red"), EncodedImage(b"", "img.png")])


@pytest.fixture(scope="module")
def loading():
    return load_params().judges.loading


def test_the_default_panel_asks_neither_text_nor_model(loading):
    panel = load_panel(**loading)
    assert panel.versions.keys() == {"clip", "q16", "nudenet", "age"}
    [row] = panel.look_at_all([png("blue")]).scores
    assert row.keys() == {"q16", "nudenet", "age"}


def write_categories(folder):
    for name, concepts in world.MARKS.items():
        lines = "".join(f"  {c}: test_unseen\n" for c in concepts)  # the held-out ones count too
        text = f"name: {name}\ndefinition: D {name}.\nconcepts:\n{lines}"
        (folder / f"{name}.yaml").write_text(text)


def test_categories_are_told_to_those_who_look_for_them(loading, tmp_path, monkeypatch):
    write_categories(tmp_path)
    told = {}
    monkeypatch.setattr(panels, "load_vlm", lambda **given: told.update(given) or FakeVlm())
    zero_shot = {"template": "a red star with a {}", "neutral": ["a red star"]}
    vlm = {"loading": {"model": "m"}, "max_attempts": 3}
    panel = load_panel(**loading | {"categories": tmp_path, "zero_shot": zero_shot, "vlm": vlm})
    assert told == vlm | {"categories": {name: f"D {name}." for name in sorted(world.MARKS)}}
    texts = {name: [f"a red star with a {c}" for c in world.MARKS[name]]
             for name in sorted(world.MARKS)} | {"none": ["a red star"]}  # fmt: skip
    assert panel.zero_shot.version == TextDirections(panel.clip, texts).version


def test_no_categories_to_look_for_is_an_error(loading, tmp_path):
    zero_shot = {"template": "{}", "neutral": ["a cup"]}
    with pytest.raises(InputError, match="holds no categories .* run `dvc repro propose_concepts`"):
        load_panel(**loading | {"categories": tmp_path, "zero_shot": zero_shot})


def test_vectors_of_another_clip_are_refused_before_it_is_loaded(loading, monkeypatch):
    bundled = hashlib.sha256(loading["q16"].read_bytes()).hexdigest()
    monkeypatch.setattr(q16, "PUBLISHED", {bundled: "ViT-L-14"})
    monkeypatch.setattr(q16, "_read_published", q16._read_safetensors)
    monkeypatch.setattr(panels, "ClipModel", None)
    with pytest.raises(InputError, match="judges.q16 was tuned for OpenAI's ViT-L-14"):
        load_panel(**loading | {"clip": "ViT-L-14", "clip_pretrained": "laion2b_s32b_b82k"})
