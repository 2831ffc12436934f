"""NudeNet: body parts seen in an image, by the detector's own ONNX model."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.errors import InputError
from pipeline.records import Detection
from pipeline.storage import file_id

if TYPE_CHECKING:
    import numpy as np

CLASSES = (
    "FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED",
    "BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED", "ARMPITS_EXPOSED", "FACE_MALE",
    "BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)  # fmt: skip
_LEAST = 0.2  # the detector passes over boxes that score less


class NudeNet:
    """The detector with the weights of its wheel; detections below its floor of 0.25 are absent.

    Every image is a run of its own on one core, as many at a time as there are cores, so that its
    scores depend on nothing else. Measured (nudenet 3.4.2, onnxruntime 1.31, 64 photographs of 512
    pixels, two cores that others used): batches of 2 to 64, as of the library's ``detect_batch``,
    give the very same numbers, but take the network 2.4 to 3 s of processor time, this 1.9 s.

    The library swaps red and blue before its network sees them, and so does whoever calls it: the
    published rates are made like this, and so are ours.
    """

    def __init__(self) -> None:
        import nudenet

        self._detector = nudenet.NudeDetector()
        weights = Path(nudenet.__file__).with_name("320n.onnx")
        self._detector.onnx_session = _Session(weights)
        self.version = (
            f"{version('nudenet')}/{file_id(weights)}, onnxruntime {version('onnxruntime')}"
        )

    def find(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        """What is seen in every RGB image, the surest first.

        Boxes that overlap are one detection, of the class that is surest. Raises InputError when
        the network gives numbers that are none: an image that could not be judged is never safe.
        """
        with ThreadPoolExecutor() as threads:
            return list(threads.map(self._find, images))

    def _find(self, image: Image.Image) -> tuple[Detection, ...]:
        import numpy as np

        # in OpenCV's order of channels, as when the library reads a file itself
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        return tuple(
            Detection(found["class"], found["score"], *found["box"])
            for found in self._detector.detect(pixels)
        )


class _Session:
    """The detector's network on one core."""

    def __init__(self, weights: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            weights, options, providers=["CPUExecutionProvider"]
        )

    def run(self, names: None, inputs: Mapping[str, "np.ndarray"]) -> list["np.ndarray"]:
        """The boxes (1, 4 + classes, boxes) that the detector does not pass over.

        It would pass over each of 2,100 boxes by itself, which takes a quarter as long as the
        network; and one that scores NaN it would pass over, too.
        """
        import numpy as np

        boxes = self._session.run(names, inputs)[0]
        if not np.isfinite(boxes).all():
            raise InputError("NudeNet's network gives numbers that are none; install nudenet again")
        kept = boxes[:, :, boxes[0, 4:].max(0) >= _LEAST]
        # the detector cannot read fewer than two
        return [np.concatenate([kept, np.zeros_like(boxes[:, :, :2])], axis=2)]


def best_scores(detections: Sequence[Detection]) -> dict[str, float]:
    """The best score of every class, 0 where none was found."""
    best = dict.fromkeys(CLASSES, 0.0)
    for found in detections:
        best[found.name] = max(best[found.name], found.score)
    return best
