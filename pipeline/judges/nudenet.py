"""NudeNet: body parts seen in an image, by the detector's own ONNX model."""

from collections.abc import Sequence
from importlib.metadata import version
from math import isfinite

CLASSES = (
    "FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED",
    "BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED", "ARMPITS_EXPOSED", "FACE_MALE",
    "BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)  # fmt: skip


class NudeNet:
    """The detector with the weights of its wheel; detections below its floor of 0.25 are absent."""

    def __init__(self) -> None:
        from nudenet import NudeDetector

        self._detector = NudeDetector()
        self.version = version("nudenet")

    def score(self, images: Sequence[bytes]) -> list[dict[str, float]]:
        """Image files to the best detection score of every class, 0 where none was found.

        The bytes are decoded by the detector itself, as when it is given a path. An exception of
        the detector is passed on: an image that could not be judged is never a safe one.
        """
        rows = []
        for data in images:
            best = dict.fromkeys(CLASSES, 0.0)
            for found in self._detector.detect(data):
                score = float(found["score"])
                if not isfinite(score):
                    raise ValueError(f"NudeNet returned score {score} for {found['class']}")
                best[found["class"]] = max(best[found["class"]], score)
            rows.append(best)
        return rows
