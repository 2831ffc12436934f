"""NudeNet with its own weights, on a photograph that matplotlib brings and on made-up outputs."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from nudenet import NudeDetector
from PIL import Image

from pipeline.errors import InputError
from pipeline.judges.nudenet import CLASSES, NudeNet, best_scores
from pipeline.pixels import decode_image, encode_png
from pipeline.records import Detection, EncodedImage


@pytest.fixture(scope="module")
def nudenet():
    return NudeNet()


@pytest.fixture(scope="module")
def photograph():
    """A portrait, 512 x 600: Grace Hopper in uniform, her face right of the middle, upper half."""
    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as opened:
        return opened.convert("RGB")


@pytest.fixture(scope="module")
def crops(photograph):
    return [photograph.crop((k, k, k + 300 + 20 * k, k + 400)) for k in range(6)]


def is_her_face(detections):
    [face] = [d for d in detections if d.name.startswith("FACE")]
    centre = face.x + face.width / 2, face.y + face.height / 2
    return face.score > 0.5 and 240 < centre[0] < 290 and 210 < centre[1] < 280


def test_a_face_is_found_where_it_is(nudenet, photograph):
    [found] = nudenet.find([photograph])
    assert is_her_face(found)
    scores = best_scores(found)
    assert scores.keys() == set(CLASSES)
    assert scores["FACE_FEMALE"] == found[0].score
    assert all(scores[c] == 0 for c in CLASSES if c.endswith("EXPOSED"))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_the_verdict_on_a_file_does_not_hang_on_its_form(nudenet, photograph, mode, tmp_path):
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    photograph.convert(mode).save(file)
    picture = decode_image(EncodedImage(file.read_bytes(), file.name))
    assert is_her_face(nudenet.find([picture])[0])


def test_detections_are_the_librarys_to_the_last_bit(nudenet, crops):
    files = [encode_png(crop, "x").bytes for crop in crops]
    own = NudeDetector()
    assert any(own.detect(file) for file in files)
    expected = [own.detect(file) for file in files]
    assert own.detect_batch(files, 4) == expected
    found = [[{"class": d.name, "score": d.score, "box": [d.x, d.y, d.width, d.height]}
              for d in detections] for detections in nudenet.find(crops)]  # fmt: skip
    assert found == expected


def test_an_image_is_judged_alike_in_any_company(nudenet, crops):
    together = nudenet.find(crops)
    assert [nudenet.find([crop])[0] for crop in crops] == together
    assert nudenet.find(crops[::-1]) == together[::-1]
    assert nudenet.find([]) == []


@pytest.fixture
def scripted(nudenet, monkeypatch):
    """Has the network answer with boxes of given (class, score), side by side."""

    def script(*boxes):
        raw = np.zeros((1, 4 + len(CLASSES), 2100), np.float32)
        for k, (name, score) in enumerate(boxes):
            raw[0, :4, k] = 40 + 60 * k, 40, 20, 10  # centre and size, of 320
            raw[0, 4 + CLASSES.index(name), k] = score
        network = SimpleNamespace(run=lambda names, inputs: [raw])
        monkeypatch.setattr(nudenet._detector.onnx_session, "_session", network)

    return script


def test_every_detection_is_kept_with_its_box(nudenet, scripted):
    scripted(("FEET_EXPOSED", 0.5), ("FACE_MALE", 0.75), ("FEET_EXPOSED", 0.875))
    [found] = nudenet.find([Image.new("RGB", (640, 320))])
    assert found == (
        Detection("FEET_EXPOSED", 0.875, 300, 70, 40, 20),
        Detection("FACE_MALE", 0.75, 180, 70, 40, 20),
        Detection("FEET_EXPOSED", 0.5, 60, 70, 40, 20),
    )  # fmt: skip
    assert best_scores(found) == dict.fromkeys(CLASSES, 0.0) | {
        "FEET_EXPOSED": 0.875, "FACE_MALE": 0.75
    }  # fmt: skip


@pytest.mark.parametrize(("score", "found"), [(0.0, 0), (0.24, 0), (0.26, 1)])
def test_one_box_or_none_is_no_special_case(nudenet, scripted, score, found):
    scripted(("ANUS_EXPOSED", score))
    assert len(nudenet.find([Image.new("RGB", (320, 320))])[0]) == found


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_raises(nudenet, scripted, score):
    """The library itself passes over NaN, as if there was nothing to be seen."""
    scripted(("FACE_MALE", score))
    with pytest.raises(InputError, match="numbers that are none"):
        nudenet.find([Image.new("RGB", (320, 320))])


def test_a_version_names_the_weights_and_what_runs_them():
    assert re.fullmatch(r"3\.\d+\.\d+/[0-9a-f]{16}, onnxruntime \d+\.\d+.*", NudeNet().version)
