"""The Inception door on the real network with random weights: nothing is downloaded."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch_fidelity import feature_extractor_inceptionv3 as library

from pipeline.errors import InputError
from pipeline.judges.inception import Inception

SIZES = [(40, 30), (64, 64), (40, 30), (320, 310), (40, 30)]  # width, height


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Random weights in half precision (48 MB) in the form that torch-fidelity loads."""
    network = library.FeatureExtractorInceptionV3
    with (
        patch.object(library, "load_state_dict_from_url"),
        patch.object(network, "load_state_dict"),
    ):
        template = network("template", ["2048"]).state_dict()
    rng = torch.Generator().manual_seed(0)
    for name, values in template.items():
        if values.ndim == 4:  # He's scale: activations neither vanish nor explode
            values.normal_(0, (2 / values[0].numel()) ** 0.5, generator=rng)
        template[name] = values.half() if values.is_floating_point() else values
    file = tmp_path_factory.mktemp("inception") / "published.pth"
    torch.save(template, file)
    return file


@pytest.fixture(scope="module")
def weights(published):
    """The same file converted as the module says."""
    state = torch.load(published, weights_only=True)
    file = published.with_name("inception.safetensors")
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    return file


@pytest.fixture(scope="module")
def inception(weights):
    return Inception(weights, 2)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(256, size=(h, w, 3), dtype=np.uint8)) for w, h in SIZES]


def test_features_are_torch_fidelitys_own(inception, images, published):
    own = library.FeatureExtractorInceptionV3(
        "own", ["2048"], feature_extractor_weights_path=str(published)
    ).to(inception._device)
    features = inception.embed_images(images)
    assert features.shape == (5, 2048) and features.dtype == torch.float32
    assert features.device.type == "cpu" and features.std() > 1e-3
    for image, row in zip(images, features, strict=True):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(inception._device)
        assert torch.allclose(row, own(pixels)[0][0].cpu(), rtol=1e-4, atol=1e-5)
    assert (features[0] - features[2]).abs().max() > 1e-3  # rows are told apart


def test_pixels_are_taken_as_rgb(inception, images):
    grey = images[1].convert("L")
    assert torch.equal(
        inception.embed_images([grey]), inception.embed_images([grey.convert("RGB")])
    )


def test_no_images_have_no_features(inception):
    assert inception.embed_images([]).shape == (0, 2048)


def test_nothing_is_downloaded_or_unpickled(weights, monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("not from here")

    monkeypatch.setattr(library, "load_state_dict_from_url", refused)
    monkeypatch.setattr(torch, "load", refused)
    assert Inception(weights, 1).version == Inception(weights, 8).version
    assert library.load_state_dict_from_url is refused  # the library is left as it was


def test_the_version_is_the_files(weights, tmp_path):
    state = load_file(weights)
    state["fc.bias"] = state["fc.bias"] + 1
    save_file(state, tmp_path / "other.safetensors")
    one, other = Inception(weights, 1).version, Inception(tmp_path / "other.safetensors", 1).version
    assert len(one) == 16 and one != other


def test_a_missing_damaged_or_other_file_is_named(tmp_path, published):
    with pytest.raises(InputError, match="judges.inception .*none.safetensors .*says how"):
        Inception(tmp_path / "none.safetensors", 1)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    for file in (tmp_path / "cut.safetensors", tmp_path / "other.safetensors", published):
        with pytest.raises(InputError, match="is not a safetensors file of the FID network"):
            Inception(file, 1)
