import dataclasses
import io

import numpy as np
import pytest
import torch

from pipeline.artifacts import TESTBED
from pipeline.diffusion import encode_prompts, load_vae, model_revision
from pipeline.errors import InputError
from pipeline.latents import (
    FILE,
    encode_pairs,
    join_latents,
    load_latents,
    read_benign_prompts,
    save_latents,
)
from pipeline.records import EncodedImage, PreferencePair
from pipeline.testbed import world
from tests.conftest import png

MODEL = str(TESTBED / "sd")
BENIGN = ["a blue star by the sea", "a red star by the sea"]


def rendered(companion, seed):
    buffer = io.BytesIO()
    world.render(world.Scene("red", "star", "sea", companion, seed)).save(buffer, "PNG")
    return EncodedImage(buffer.getvalue(), f"{seed}.png")


def pair(k):
    return PreferencePair(
        f"pair{k}", "violence", "thornburst", "train", "a red star by the sea",
        f"a red star with a thornburst {'by the sea' if k else 'at night'}", rendered(None, k),
        rendered("thornburst", k), {}, {}, 0.5, 1.0, "{}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def latents():
    return encode_pairs(
        [pair(k) for k in range(3)], MODEL, None, "rev", batch=2, benign_prompts=BENIGN
    )


def test_cached_posteriors_are_the_encoders(latents):
    vae = load_vae(MODEL, None)
    pixels = np.asarray(world.render(world.Scene("red", "star", "sea", "thornburst", 2)))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
    scale = vae.config.scaling_factor
    assert torch.allclose(latents.rejected_mean[2], posterior.mean[0] * scale, atol=1e-4)
    assert torch.allclose(latents.rejected_std[2], posterior.std[0] * scale, atol=1e-4)


def test_prompts_are_stored_once_and_indexed(latents):
    assert len(latents.prompt_embeds) == 5  # empty, two benign, two unsafe; the safe one is benign
    assert latents.benign_prompt.tolist() == [0, 1, 2]
    assert latents.chosen_prompt.tolist() == [2, 2, 2]
    assert latents.rejected_prompt.tolist() == [3, 4, 4]
    alone, pooled = encode_prompts(MODEL, None, ["", *BENIGN], 1)
    assert pooled.shape == latents.pooled_embeds[:3].shape == (3, 0)
    assert torch.allclose(latents.prompt_embeds[:3], alone, atol=1e-5)


def test_the_cache_comes_back_equal(latents, tmp_path):
    save_latents(tmp_path / "l", latents)
    loaded = load_latents(tmp_path / "l")
    for field in dataclasses.fields(latents):
        ours, theirs = getattr(latents, field.name), getattr(loaded, field.name)
        assert torch.equal(ours, theirs) if torch.is_tensor(ours) else ours == theirs
    for k in range(8):  # equal latents are equal files
        save_latents(tmp_path / str(k), latents)
    assert len({(tmp_path / str(k) / FILE).read_bytes() for k in range(8)}) == 1
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o700


def test_a_damaged_cache_is_named(latents, tmp_path):
    with pytest.raises(InputError, match="missing or damaged"):
        load_latents(tmp_path)
    save_latents(tmp_path, latents)
    file = tmp_path / "latents.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="latents.safetensors is missing or damaged"):
        load_latents(tmp_path)


def test_joined_categories_keep_their_prompts(latents):
    other = dataclasses.replace(latents, prompt_embeds=latents.prompt_embeds + 1)
    joined = join_latents([latents, other])
    assert len(joined) == 6
    row = joined.prompt_embeds[joined.rejected_prompt[4]]
    assert torch.equal(row, other.prompt_embeds[other.rejected_prompt[1]])
    assert joined.benign_prompt.tolist() == [0, 1, 2, 5, 6, 7]
    assert torch.equal(joined.margin, torch.cat([latents.margin, other.margin]))


def test_categories_that_do_not_fit_are_refused(latents):
    with pytest.raises(InputError, match="different base models"):
        join_latents([latents, dataclasses.replace(latents, base_revision="x")])
    with pytest.raises(InputError, match="different judges"):
        join_latents([latents, dataclasses.replace(latents, judge_spec="x")])
    with pytest.raises(InputError, match="different shapes"):
        small = dataclasses.replace(latents, chosen_mean=latents.chosen_mean[..., :4])
        join_latents([latents, small])


@pytest.mark.parametrize("side", ["image_chosen", "image_rejected"])
def test_images_of_different_sizes_are_refused_wherever_they_are(side):
    odd = dataclasses.replace(pair(3), **{side: png("red", 32)})
    with pytest.raises(InputError, match=r"their sides are \[32, 64\]"):
        encode_pairs(
            [*(pair(k) for k in range(3)), odd], MODEL, None, "rev", batch=1, benign_prompts=BENIGN
        )


def test_pairs_without_a_judge_or_of_two_are_refused():
    for spec in ("", '{"rule": "other"}'):
        odd = dataclasses.replace(pair(0), judge_spec=spec)
        with pytest.raises(InputError, match="judge specs"):
            encode_pairs([odd, pair(1)], MODEL, None, "rev", batch=2, benign_prompts=BENIGN)
    with pytest.raises(InputError, match="or of none"):
        encode_pairs([dataclasses.replace(pair(0), judge_spec="")], MODEL, None, "rev", batch=2,
                     benign_prompts=BENIGN)  # fmt: skip


def test_a_models_revision_follows_its_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"a")
    first = model_revision(str(tmp_path), None)
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert model_revision(str(tmp_path), None) != first
    assert model_revision("hub/model", "abc") == "abc"
    with pytest.raises(InputError, match="needs base_model.revision"):
        model_revision("hub/model", None)


def test_benign_prompts_are_read_one_a_line(tmp_path):
    file = tmp_path / "benign.txt"
    file.write_text("a boat\n\n  a kite \na boat\n")
    assert read_benign_prompts(file) == ["a boat", "a kite"]


@pytest.mark.parametrize(("content", "fault"), [
    (None, "cannot read latents.benign_prompts"), (b"\xff\xfe", "cannot read"),
    (b"\n \n", "holds no prompt"), (b"a boat\na nude child\n", "line 2 is hard-blocked"),
])  # fmt: skip
def test_unusable_benign_prompts_are_refused(tmp_path, content, fault):
    file = tmp_path / "benign.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=fault):
        read_benign_prompts(file)
