"""The CLIP door on the bundled model, and what it makes of OpenAI's by name alone."""

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.judges.clip import ClipModel
from pipeline.testbed import world

FOLDER = TESTBED / "clip"
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])  # of openai/CLIP's own preprocessing
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="module")
def clip():
    return ClipModel(f"local-dir:{FOLDER}", None, 16)


def scenes(companions):
    rng = np.random.default_rng(0)
    return [world.sample_scene(rng, c) for c in companions]


def test_captions_are_told_apart(clip):
    drawn = scenes([*world.COMPANIONS, *world.LOOKALIKES])
    images = clip.embed_images([world.render(s) for s in drawn])
    texts = clip.embed_texts([world.caption(s) for s in drawn])
    assert torch.allclose(images.norm(dim=1), torch.ones(len(drawn)), atol=1e-5)
    best = (images @ texts.T).argmax(1)
    assert (best == torch.arange(len(drawn))).float().mean() > 0.9


def test_the_batch_does_not_change_a_score(clip):
    images = [world.render(s) for s in scenes(list(world.CATEGORY_OF)[:20])]
    together = clip.embed_images(images)
    alone = torch.cat([clip.embed_images([i]) for i in images[:3]])
    assert torch.allclose(together[:3], alone, atol=1e-5)


def test_a_batch_too_large_for_memory_is_judged_in_halves(monkeypatch):
    clip, asked = ClipModel(f"local-dir:{FOLDER}", None, 16), []
    images = [world.render(s) for s in scenes(list(world.CATEGORY_OF)[:10])]
    plain, whole = clip.embed_images(images), clip._model.encode_image

    def cramped(x, **given):
        asked.append(len(x))
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(x, **given)

    monkeypatch.setattr(clip._model, "encode_image", cramped)
    assert torch.allclose(clip.embed_images(images), plain, atol=1e-5)
    assert asked == [10, 5, 2, 2, 2, 2, 2]


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(
        InputError, match="cannot load judges.clip 'local-dir:.*none'.*git checkout"
    ):
        ClipModel(f"local-dir:{tmp_path / 'none'}", None, 1)


def test_a_folder_without_weights_never_becomes_a_random_judge(tmp_path):
    for file in FOLDER.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    with pytest.raises(InputError, match="cannot load judges.clip"):
        ClipModel(f"local-dir:{tmp_path}", None, 1)


def test_weights_of_a_file_are_identified_by_their_content(clip, tmp_path, monkeypatch):
    config = json.loads((FOLDER / "open_clip_config.json").read_text())["model_cfg"]
    del config["text_cfg"]["hf_tokenizer_name"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ours", config)
    weights = load_file(FOLDER / "open_clip_model.safetensors")
    file, versions = tmp_path / "weights.safetensors", set()
    for change in (0, 1e-3):
        save_file(weights | {"logit_scale": weights["logit_scale"] + change}, file)
        versions.add(ClipModel("ours", str(file), 1).version)
    assert len(versions) == 2 and all(v.startswith("ours/") for v in versions)
    assert str(tmp_path) not in "".join(versions)


@pytest.mark.parametrize(
    ("name", "tag"), [("ViT-L-14", "openai"), ("ViT-L/14", "OpenAI"), ("ViT-B-32", "metaclip-400m")]
)
def test_weights_of_another_activation_are_refused_before_they_are_fetched(name, tag, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model_and_transforms", None)
    with pytest.raises(InputError, match=f"'{name}' computes another activation .*-quickgelu"):
        ClipModel(name, tag, 1)


@pytest.fixture(scope="module")
def openai():
    """OpenAI's ViT-L/14 as open_clip builds it, with shapes and settings but no weights."""
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: "nowhere")
        model, _, preprocess = open_clip.create_model_and_transforms(
            "ViT-L-14-quickgelu", pretrained="openai", load_weights=False, device="meta"
        )
    return model, preprocess


def test_openais_own_activation_and_shapes(openai):
    model, _ = openai
    activations = {type(b.mlp.gelu) for b in (*model.visual.transformer.resblocks,
                                              *model.transformer.resblocks)}  # fmt: skip
    assert activations == {open_clip.transformer.QuickGELU}
    assert len(model.visual.transformer.resblocks) == 24
    picture = torch.empty(2, 3, 224, 224, device="meta")
    assert model.encode_image(picture).shape == (2, 768)  # the width of Q16's published vectors
    tokens = open_clip.get_tokenizer("ViT-L-14-quickgelu")(["a cup", "two cups", "three cups"])
    assert model.encode_text(tokens.to("meta")).shape == (3, 768)


def test_openais_own_preprocessing(openai):
    _, preprocess = openai
    plain = preprocess(Image.new("RGB", (512, 512), (51, 102, 153)))
    assert plain.shape == (3, 224, 224)
    expected = (torch.tensor([0.2, 0.4, 0.6]) - MEAN) / STD
    assert torch.allclose(plain, expected[:, None, None].expand_as(plain), atol=1e-5)
    wide = Image.new("RGB", (896, 448))
    wide.paste((51, 102, 153), (224, 0, 672, 448))  # the middle, which alone is seen
    inner = (..., slice(4, -4))  # resizing smears the edge
    assert torch.allclose(preprocess(wide)[inner], plain[inner], atol=1e-5)
