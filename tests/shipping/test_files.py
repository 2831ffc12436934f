import copy
import json
import re
from functools import cache

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pipeline.artifacts import LORA_FILE, TESTBED
from pipeline.diffusion import load_unet
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.lora import LoraLayer, load_lora, save_lora
from pipeline.shipping import files
from pipeline.shipping.files import CARD_FILE, save_fused, save_kohya, ship
from pipeline.shipping.model_card import FOLDER, FUSED, KOHYA_FILE
from pipeline.sources import ModelSource
from tests.shipping.test_model_card import JUDGES, base_evaluation, evaluation, provenance

MODEL = ModelSource(str(TESTBED / "sd"))
RANKS = (1, 3, 4)
SAMPLER = Sampler("dpm++", 4, 2.5, 64)
PROMPTS, SEEDS = ["a red star at night", "a blue cup by the sea"], [1, 2]
LINEAR = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")


def random_lora(unet, size=0.05):
    """A LoRA on every linear layer of the attention blocks, of ranks that differ by layer."""
    rng = torch.Generator().manual_seed(0)
    layers = {name: module for name, module in unet.named_modules()
              if name.endswith(LINEAR) and isinstance(module, torch.nn.Linear)}  # fmt: skip
    return {
        name: LoraLayer(
            size * torch.randn(RANKS[k % 3], module.in_features, generator=rng),
            torch.randn(module.out_features, RANKS[k % 3], generator=rng),
        )
        for k, (name, module) in enumerate(sorted(layers.items()))
    }


@pytest.fixture(scope="module")
def lora():
    return random_lora(load_unet(MODEL))


@pytest.fixture(scope="module")
def made():
    return provenance() | {"base_model": MODEL.path, "base_revision": MODEL.identity}


@pytest.fixture(scope="module")
def lora_folder(lora, made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    save_lora(folder, lora, made)
    return folder


@pytest.fixture(scope="module")
def kohya_file(lora, tmp_path_factory):
    path = tmp_path_factory.mktemp("kohya") / "kohya.safetensors"
    save_kohya(path, lora, {"a": 1})
    return path


def draw(pipe):
    pictures = draw_images(pipe, PROMPTS, SEEDS, SAMPLER)
    return np.stack([np.asarray(p).astype(int) for p in pictures])


@pytest.fixture(scope="module")
def drawn(bundled_pipeline):
    """Draws with a LoRA file as plain diffusers loads it, and with the base model for None."""

    pipe = copy.deepcopy(bundled_pipeline)

    @cache
    def draw_with(path):
        if path is None:
            return draw(pipe)
        pipe.load_lora_weights(str(path))
        try:
            return draw(pipe)
        finally:
            pipe.unload_lora_weights()

    return draw_with


def applied_deltas(unet, mixin, path):
    """Layer -> the delta that diffusers adds to a UNet's weights for a LoRA file."""
    state, alphas = mixin.lora_state_dict(str(path), unet_config=unet.config)
    unet.load_lora_adapter(state, network_alphas=alphas, prefix="unet", adapter_name="kohya")
    return {
        name: module.get_delta_weight("kohya").detach()
        for name, module in unet.named_modules() if hasattr(module, "get_delta_weight")
    }  # fmt: skip


def assert_same_deltas(deltas, lora):
    assert deltas.keys() == lora.keys()
    for name, layer in lora.items():
        assert torch.allclose(deltas[name], layer.delta, rtol=1e-5, atol=1e-7), name


def test_plain_diffusers_draws_the_same_with_kohyas_keys(drawn, lora_folder, kohya_file):
    ours, theirs = drawn(lora_folder / LORA_FILE), drawn(kohya_file)
    assert abs(ours - drawn(None)).max() > 50
    assert abs(ours - theirs).max() <= 1


def test_diffusers_adds_the_same_deltas_with_kohyas_keys(lora, kohya_file):
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    assert_same_deltas(
        applied_deltas(load_unet(MODEL), StableDiffusionLoraLoaderMixin, kohya_file), lora
    )


def test_kohyas_file_has_one_rank_which_is_its_alpha(lora, kohya_file):
    with safe_open(kohya_file, "pt") as file:
        assert file.metadata() == {"provenance": '{"a": 1}'}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    names = {name: f"lora_unet_{name.replace('.', '_')}" for name in lora}
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert tensors.keys() == {f"{key}.{part}" for key in names.values() for part in parts}
    deltas = {}
    for name, key in names.items():
        down, up, alpha = (tensors[f"{key}.{part}"] for part in parts)
        assert len(down) == alpha == max(RANKS)
        deltas[name] = up @ down
    assert_same_deltas(deltas, lora)


def test_equal_loras_are_equal_kohya_files(lora, tmp_path):
    contents = set()
    for k in range(4):
        save_kohya(tmp_path / f"{k}", lora, {"b": 1, "a": [2]} if k % 2 else {"a": [2], "b": 1})
        contents.add((tmp_path / f"{k}").read_bytes())
    assert len(contents) == 1
    assert len(list(tmp_path.iterdir())) == 4  # nothing unfinished is left


def test_layers_of_rank_0_are_left_out_of_kohyas_file(lora, tmp_path):
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    name, layer = next(iter(lora.items()))
    empty = {name: LoraLayer(layer.down[:0], layer.up[:, :0])}
    path = tmp_path / "k.safetensors"
    save_kohya(path, lora | empty, {})
    assert_same_deltas(
        applied_deltas(load_unet(MODEL), StableDiffusionLoraLoaderMixin, path),
        {n: v for n, v in lora.items() if n != name},
    )
    with pytest.raises(InputError, match="that changes no layer cannot be shipped"):
        save_kohya(path, empty, {})


def test_a_dora_is_refused(lora, tmp_path):
    name, layer = next(iter(lora.items()))
    dora = {name: LoraLayer(layer.down, layer.up, torch.ones(len(layer.up)))}
    with pytest.raises(InputError, match=f"layer {name}.*experts.lora.dora: false"):
        save_kohya(tmp_path / "k.safetensors", lora | dora, {})
    assert not list(tmp_path.iterdir())


def test_sdxl_layers_come_back_under_their_names(tmp_path):
    from diffusers import UNet2DConditionModel
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin

    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4,
        attention_head_dim=(2, 4), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
        cross_attention_dim=8, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=56, use_linear_projection=True,
    )  # fmt: skip
    lora = random_lora(unet)
    assert any("transformer_blocks.1" in name for name in lora)
    assert any(name.endswith("proj_in") for name in lora)
    save_kohya(tmp_path / "k.safetensors", lora, {})
    assert_same_deltas(
        applied_deltas(unet, StableDiffusionXLLoraLoaderMixin, tmp_path / "k.safetensors"), lora
    )


def test_the_fused_model_draws_what_the_lora_draws(drawn, lora_folder, tmp_path):
    from diffusers import StableDiffusionPipeline

    save_fused(tmp_path / "fused", MODEL, lora_folder)
    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "fused")
    plain.set_progress_bar_config(disable=True)
    assert {p.dtype for p in plain.unet.parameters()} == {torch.float32}
    assert abs(draw(plain) - drawn(lora_folder / LORA_FILE)).max() <= 1
    assert [p.name for p in tmp_path.iterdir()] == ["fused"]


def test_the_fused_weights_are_the_bases_with_the_scaled_deltas(lora, lora_folder, tmp_path):
    (tmp_path / "fused").mkdir()
    (tmp_path / "fused" / "stale").touch()
    save_fused(tmp_path / "fused", MODEL, lora_folder, scale=0.5)
    base = load_unet(MODEL).state_dict()
    fused = load_unet(ModelSource(str(tmp_path / "fused"))).state_dict()
    assert fused.keys() == base.keys()
    for name, weight in base.items():
        layer = lora.get(name.removesuffix(".weight"))
        expected = weight if layer is None else weight + 0.5 * layer.delta
        assert torch.allclose(fused[name], expected, atol=1e-6), name
    assert not (tmp_path / "fused" / "stale").exists()
    for part in ("vae", "text_encoder"):
        of_base = next((TESTBED / "sd" / part).glob("*.safetensors"))
        with (
            safe_open(of_base, "pt") as a,
            safe_open(next((tmp_path / "fused" / part).glob("*.safetensors")), "pt") as b,
        ):
            assert all(torch.equal(a.get_tensor(k).float(), b.get_tensor(k)) for k in a.keys())  # noqa: SIM118


class Written:
    """Stands for a pipeline: what is saved of it is one file."""

    def __init__(self, text):
        self.text = text

    def save_pretrained(self, folder):
        folder.mkdir()
        (folder / "weights").write_text(self.text)
        if self.text == "half":
            raise KeyboardInterrupt


@pytest.mark.parametrize("cleans_up", [True, False])
@pytest.mark.parametrize("last", [0, 1])
def test_a_kill_while_the_folders_change_places_loses_neither(
    monkeypatch, tmp_path, last, cleans_up
):
    """Killed before each of the two renames, with the time to remove what is unfinished or not."""

    def save(text):
        monkeypatch.setattr(files, "load_published", lambda source: Written(text))
        save_fused(tmp_path / "fused", MODEL, tmp_path / "lora")

    def saved():
        found = tmp_path.rglob("weights")
        return {f.relative_to(tmp_path).as_posix(): f.read_text() for f in found}

    renames = []

    def rename(path, target):
        if len(renames) == last:
            raise KeyboardInterrupt
        renames.append(target)
        return path.replace(target)

    monkeypatch.setattr(files, "apply_lora", lambda *_: None)
    save("old")
    with monkeypatch.context() as killed:
        killed.setattr(type(tmp_path), "rename", rename)
        if not cleans_up:
            killed.setattr(files.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            save("new")
    assert "old" in saved().values()
    with pytest.raises(KeyboardInterrupt):
        save("half")
    assert saved() == {"fused/weights": "old"}
    save("newer")
    assert saved() == {"fused/weights": "newer"}
    assert names(tmp_path) == {"fused"}


def test_the_fused_model_keeps_the_bases_safety_checker(lora_folder, tmp_path):
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPVisionConfig

    tiny = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        image_size=8, patch_size=4,
    )  # fmt: skip
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=tiny.to_dict(), projection_dim=8)
    )
    StableDiffusionPipeline.from_pretrained(
        MODEL.path, safety_checker=checker, requires_safety_checker=True,
        feature_extractor=CLIPImageProcessor(size=8, crop_size=8),
    ).save_pretrained(tmp_path / "base")  # fmt: skip
    save_fused(tmp_path / "fused", ModelSource(str(tmp_path / "base")), lora_folder)
    kept = StableDiffusionPipeline.from_pretrained(tmp_path / "fused")
    assert kept.config.requires_safety_checker
    assert torch.equal(kept.safety_checker.concept_embeds, checker.concept_embeds)


SHIPPED = {LORA_FILE, KOHYA_FILE, CARD_FILE}


@pytest.fixture
def given(lora_folder):
    return {
        "lora_folder": lora_folder, "source": MODEL, "evaluation": evaluation(),
        "base_evaluation": base_evaluation(), "rule": "safetydpo", "judges": JUDGES,
        "sampler": SAMPLER,
    }  # fmt: skip


def names(folder):
    return {entry.name for entry in folder.iterdir()}


def test_the_folder_holds_what_is_shipped_and_nothing_else(given, lora_folder, drawn, tmp_path):
    folder = tmp_path / "shipped"
    ship(folder, **given, fused=True)
    assert names(folder) == SHIPPED | {FUSED}
    (folder / "stale.safetensors").touch()
    (folder / "old").mkdir()
    ship(folder, **given)
    assert names(folder) == SHIPPED
    assert (folder / LORA_FILE).read_bytes() == (lora_folder / LORA_FILE).read_bytes()
    with safe_open(folder / KOHYA_FILE, "pt") as file:
        header = json.loads(file.metadata()["provenance"])
    assert header == load_lora(folder)[1]
    # diffusers finds its own file beside kohya's
    assert (drawn(folder) == drawn(lora_folder / LORA_FILE)).all()


def test_shipping_again_gives_equal_bytes(given, tmp_path):
    def shipped(name):
        ship(tmp_path / name, **given, fused=True)
        files = (p for p in (tmp_path / name).rglob("*") if p.is_file())
        return {p.relative_to(tmp_path / name): p.read_bytes() for p in files}

    assert shipped("a") == shipped("b")


def test_the_cards_snippet_draws_what_was_measured(given, lora_folder, drawn, tmp_path):
    ship(tmp_path, **given)
    card = (tmp_path / CARD_FILE).read_text()
    assert "of rank 4\n" in card
    code = re.search(r"```python\n(.*?)```", card, re.S)[1].replace(FOLDER, str(tmp_path))
    scope = {}
    exec(code, scope)
    scope["pipe"].set_progress_bar_config(disable=True)
    assert abs(draw(scope["pipe"]) - drawn(lora_folder / LORA_FILE)).max() <= 1
    off = code.replace("adapter_weights=1.0", "adapter_weights=0.0")
    exec(off[off.index("pipe.set_adapters") :], scope)
    assert (draw(scope["pipe"]) == drawn(None)).all()


@pytest.mark.parametrize(("change", "message"), [
    ({"lora_folder": "nowhere"}, "missing or damaged"),
    ({"source": ModelSource("org/model", "other")}, "was trained on base model .*is other; run"),
    ({"evaluation": {}}, "evaluation of the LoRA lacks"),
])  # fmt: skip
def test_nothing_is_written_when_something_is_missing(given, change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        ship(tmp_path / "shipped", **given | change)
    assert not list(tmp_path.iterdir())
