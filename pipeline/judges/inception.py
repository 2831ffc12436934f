"""The one door to torch-fidelity: features of the Inception network that FID and KID are made of.

Its weights are published (github.com/mseitzer/pytorch-fid, release fid_weights; torch-fidelity's
own carry the same hash) in a form that can hold code. Convert them once, safely:

    from safetensors.torch import save_file
    from torch import load
    state = load("pt_inception-2015-12-05-6726825d.pth", weights_only=True)
    save_file({k: v.contiguous() for k, v in state.items()}, "inception.safetensors")
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from PIL import Image

from pipeline.errors import InputError, first_line
from pipeline.memory import Fitting

if TYPE_CHECKING:
    from torch import Tensor

FEATURES = "2048"  # torch-fidelity's name of the layer: pool3 of the TensorFlow graph
WIDTH = 2048


class Inception:
    """Inception v3 as TensorFlow's FID graph of 2015-12-05 computes it, by torch-fidelity.

    Args:
        weights: a local safetensors file of the published weights; nothing is downloaded.
        batch: images per forward; only images of one size share one.

    Raises InputError when the file is missing or is not of this network.
    """

    def __init__(self, weights: Path, batch: int) -> None:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from torch_fidelity import feature_extractor_inceptionv3 as library

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            state = load_file(weights)
            # the constructor either downloads or unpickles: hand it what it would download
            with patch.object(library, "load_state_dict_from_url", lambda *_, **__: state):
                model = library.FeatureExtractorInceptionV3("inception", [FEATURES])
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"judges.inception {weights} is not a safetensors file of the FID network "
                f"({first_line(error)}); pipeline/judges/inception.py says how to make one"
            ) from error
        self._model = model.to(self._device)
        self.batch = batch
        self._fitting = Fitting("judge images", "judges.batch")
        self.version = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]

    def embed_images(self, images: Sequence[Image.Image]) -> "Tensor":
        """Features (images, 2048) float32 on the CPU, >= 0.

        Images of any size are stretched to 299 x 299 by the network's own TensorFlow-like bilinear
        resizing, which does not smooth: crop and shrink references as the images they stand for.
        """
        import torch

        of_size: dict[tuple[int, int], list[int]] = {}
        for k, image in enumerate(images):
            of_size.setdefault(image.size, []).append(k)
        features = torch.empty(len(images), WIDTH)
        with torch.no_grad():
            for alike in of_size.values():
                for start in range(0, len(alike), self.batch):
                    part = alike[start : start + self.batch]
                    x = torch.stack([_bytes_of(images[k]) for k in part])
                    features[part] = torch.cat(self._fitting.run(
                        len(part), lambda some, x=x: self._model(x[some].to(self._device))[0].cpu(),
                        "leave judges.inception out",
                    ))  # fmt: skip
        return features


def _bytes_of(image: Image.Image) -> "Tensor":
    """Pixels (3, height, width) uint8, as torch-fidelity takes them."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
