import dataclasses
import gc
import io

import numpy as np
import pytest
import torch

from pipeline import encode, storage
from pipeline.artifacts import TESTBED
from pipeline.diffusion import encode_prompts, load_vae
from pipeline.encode import ViewSettings, encode_pairs, views_of
from pipeline.errors import InputError
from pipeline.pixels import decode_image
from pipeline.records import EncodedImage, PreferencePair
from pipeline.sources import ModelSource
from pipeline.storage import StoredRows
from pipeline.testbed import world
from tests.conftest import png

MODEL = ModelSource(str(TESTBED / "sd"))
BENIGN = ["a blue star by the sea", "a red star by the sea"]


def rendered(companion, seed):
    buffer = io.BytesIO()
    world.render(world.Scene("red", "star", "sea", companion, seed)).save(buffer, "PNG")
    return EncodedImage(buffer.getvalue(), f"{seed}.png")


def pair(k):
    return PreferencePair(
        f"pair{k}", "violence", "thornburst", "train", "a red star by the sea",
        f"a red star with a thornburst {'by the sea' if k else 'at night'}", rendered(None, k),
        rendered("thornburst", k), {}, {}, 0.5, 0.9, 1.0, "{}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def latents():
    return encode_pairs([pair(k) for k in range(3)], MODEL, batch=2, benign_prompts=BENIGN)


def test_cached_posteriors_are_the_encoders(latents):
    vae = load_vae(MODEL)
    pixels = np.asarray(world.render(world.Scene("red", "star", "sea", "thornburst", 2)))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
    scale = vae.config.scaling_factor
    assert torch.allclose(latents.rejected_mean[2, 0], posterior.mean[0] * scale, atol=1e-4)
    assert torch.allclose(latents.rejected_std[2, 0], posterior.std[0] * scale, atol=1e-4)


def test_views_are_of_both_sides_alike():
    # both sides one picture: whatever the view, their posteriors must be one too
    same = [dataclasses.replace(pair(k), image_rejected=pair(k).image_chosen) for k in range(3)]
    asked = ViewSettings(views=4, flip=True, crop=48)
    cached = encode_pairs(same, MODEL, 5, BENIGN, asked)
    assert cached.chosen_mean.shape[:2] == (3, 4)
    assert torch.allclose(cached.chosen_mean, cached.rejected_mean, atol=1e-4)
    assert (cached.pixels, cached.view_pixels) == (64, 48)
    # each is what the encoder makes of that part of the picture
    vae, scale = load_vae(MODEL), load_vae(MODEL).config.scaling_factor
    whole = np.asarray(world.render(world.Scene("red", "star", "sea", None, 1)))
    for k, view in enumerate(views_of("pair1", 64, asked)):
        assert cached.corner[1, k].tolist() == [view.top, view.left]
        part = whole[view.top : view.top + 48, view.left : view.left + 48]
        part = (part[:, ::-1] if view.mirrored else part).copy()
        x = torch.from_numpy(part).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            mean = vae.encode(x).latent_dist.mean[0] * scale
        assert torch.allclose(cached.chosen_mean[1, k], mean, atol=1e-3), k


def test_views_follow_from_the_pair():
    asked = ViewSettings(views=6, flip=True, crop=40)
    views = views_of("a", 64, asked)
    assert views[0] == (12, 12, False)  # the middle
    assert [v.mirrored for v in views] == [False, True] * 3
    assert all(views[k][:2] == views[k + 1][:2] for k in (0, 2, 4))
    assert all(0 <= v.top <= 24 and 0 <= v.left <= 24 for v in views)
    assert len({v[:2] for v in views}) == 3
    assert views_of("a", 64, asked) == views != views_of("b", 64, asked)
    assert views_of("a", 64, ViewSettings()) == [(0, 0, False)]


def test_pairs_of_a_file_are_encoded_alike_and_few_are_held(latents, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "group_rows", lambda row_type: 2)
    path = tmp_path / "pairs.parquet"
    storage.write_rows(path, PreferencePair, [pair(k) for k in range(3)])
    held = []

    def watched(image):
        held.append(sum(isinstance(o, EncodedImage) for o in gc.get_objects()))
        return decode_image(image)

    monkeypatch.setattr(encode, "decode_image", watched)
    gc.freeze()  # what is there already is no longer among gc's objects
    try:
        again = encode_pairs(StoredRows(path, PreferencePair), MODEL, 2, BENIGN)
    finally:
        gc.unfreeze()
    assert again.digest() == latents.digest()
    assert len(held) == 12  # every picture is measured, then encoded
    assert 0 < max(held) < 6  # all at once would be that


def test_a_crop_larger_than_the_images_is_refused():
    with pytest.raises(InputError, match=r"latents.crop \(72\) is larger than the images \(64"):
        encode_pairs([pair(0)], MODEL, 1, BENIGN, ViewSettings(crop=72))


def test_prompts_are_stored_once_and_indexed(latents):
    assert len(latents.prompt_embeds) == 5  # empty, two benign, two unsafe; the safe one is benign
    assert latents.benign_prompt.tolist() == [0, 1, 2]
    assert latents.chosen_prompt.tolist() == [2, 2, 2]
    assert latents.rejected_prompt.tolist() == [3, 4, 4]
    alone, pooled = encode_prompts(MODEL, ["", *BENIGN], 1)
    assert pooled.shape == latents.pooled_embeds[:3].shape == (3, 0)
    assert torch.allclose(latents.prompt_embeds[:3].float(), alone, atol=2e-3)


@pytest.mark.parametrize("side", ["image_chosen", "image_rejected"])
def test_images_of_different_sizes_are_refused_wherever_they_are(side):
    odd = dataclasses.replace(pair(3), **{side: png("red", 32)})
    with pytest.raises(InputError, match=r"their sides are \[32, 64\]"):
        encode_pairs([*(pair(k) for k in range(3)), odd], MODEL, batch=1, benign_prompts=BENIGN)


def test_pairs_without_a_judge_or_of_two_are_refused():
    for spec in ("", '{"rule": "other"}'):
        odd = dataclasses.replace(pair(0), judge_spec=spec)
        with pytest.raises(InputError, match="judge specs"):
            encode_pairs([odd, pair(1)], MODEL, batch=2, benign_prompts=BENIGN)
    with pytest.raises(InputError, match="or of none"):
        encode_pairs([dataclasses.replace(pair(0), judge_spec="")], MODEL, batch=2,
                     benign_prompts=BENIGN)  # fmt: skip
