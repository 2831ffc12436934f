import copy
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.errors import InputError
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.files import load_adapter, load_space, save_adapter, save_space
from pipeline.personal.profiles import UserProfile
from tests.personal.examples import (
    CATEGORIES,
    FLOOR,
    FORMS,
    GATED,
    make_adapter,
    make_space,
    predict,
    randomise,
    sdxl_unet,
    some_users,
    unet_inputs,
)

SPACE = make_space()
PROVENANCE = {"base_revision": "tiny", "metrics": {"loss": 0.5}, "data": {"b": "2", "a": "1"}}


def write(path, unet, settings=GATED, space=SPACE, **provenance):
    """A random adapter, saved; returns it."""
    adapter = randomise(PersonalAdapter(unet, settings, space.categories, space.width))
    save_adapter(path, adapter, space, PROVENANCE | provenance)
    return adapter


def same_space(one, other):
    assert (one.categories, one.floor, one.encoder) == (
        other.categories, other.floor, other.encoder
    )  # fmt: skip
    assert one.header() == other.header()
    assert one.arrays().keys() == other.arrays().keys()
    assert all(np.array_equal(v, other.arrays()[name]) for name, v in one.arrays().items())
    assert all(v.dtype == np.float32 for v in other.arrays().values())


@pytest.mark.parametrize("settings", FORMS, ids=lambda settings: settings.form)
@pytest.mark.parametrize("shape", ["sd", "sdxl"])
def test_an_adapter_comes_back_bit_for_bit_with_its_space(tiny_unet, tmp_path, settings, shape):
    unet, path = (tiny_unet if shape == "sd" else sdxl_unet()), tmp_path / "a" / "psa.safetensors"
    adapter = write(path, unet, settings)
    loaded = load_adapter(path, unet, "tiny")
    assert loaded.adapter.settings == settings
    assert loaded.adapter.categories == CATEGORIES
    theirs = loaded.adapter.state_dict()
    assert theirs.keys() == adapter.state_dict().keys()
    assert all(torch.equal(theirs[n], v) for n, v in adapter.state_dict().items())
    assert not any(p.requires_grad for p in loaded.adapter.parameters())
    same_space(SPACE, loaded.space)
    assert loaded.provenance == PROVENANCE
    assert not any(m._forward_hooks for m in unet.modules())  # it is not attached yet
    inputs, drawn = unet_inputs(unet), []
    for some in (adapter, loaded.adapter):
        some.attach(unet)
        some.show(some_users({"hate"}, CATEGORIES, width=SPACE.width))
        drawn.append(predict(unet, inputs))
        some.detach()
    assert torch.equal(*drawn)
    boundary = UserProfile(age=40, religion="islam"), {"hate"}
    assert np.array_equal(SPACE.boundary(*boundary).vector, loaded.space.boundary(*boundary).vector)


def test_equal_adapters_are_equal_files(tiny_unet, tmp_path):
    contents = set()
    for k, provenance in enumerate([PROVENANCE, dict(reversed(PROVENANCE.items()))] * 4):
        adapter = make_adapter(copy.deepcopy(tiny_unet), width=SPACE.width)
        save_adapter(tmp_path / str(k), adapter, SPACE, provenance)
        contents.add((tmp_path / str(k)).read_bytes())
    assert len(contents) == 1


def test_the_file_is_float32_and_the_loaded_adapter_as_the_unet(tiny_unet, tmp_path):
    adapter = randomise(PersonalAdapter(tiny_unet, GATED, CATEGORIES, SPACE.width))
    save_adapter(tmp_path / "a", adapter.to(torch.bfloat16), SPACE, PROVENANCE)
    with safe_open(tmp_path / "a", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118
        assert list(file.metadata()) == ["psa"]
    unet = tiny_unet.to(torch.bfloat16)
    loaded = load_adapter(tmp_path / "a", unet, "tiny").adapter
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert next(adapter.parameters()).dtype == torch.bfloat16  # which saving left as it was


def test_an_unfinished_file_leaves_the_one_before(tiny_unet, tmp_path):
    path = tmp_path / "psa.safetensors"
    write(path, tiny_unet)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write(path, tiny_unet, data=object())  # no JSON
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def read(path):
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def refuse(path, unet, message, revision="tiny"):
    with pytest.raises(InputError, match=message) as error:
        load_adapter(path, unet, revision)
    assert str(path) in str(error.value)


def test_missing_and_damaged_files_are_refused(tiny_unet, tmp_path):
    path = tmp_path / "psa.safetensors"
    advice = "is missing or damaged .*; run `dvc repro train_psa`"
    refuse(path, tiny_unet, advice)
    write(path, tiny_unet)
    whole = path.read_bytes()
    for damage in (b"", b"no tensors at all", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(damage)
        refuse(path, tiny_unet, advice)
    refuse(tmp_path, tiny_unet, advice)  # a folder


def test_a_file_of_something_else_is_refused(tiny_unet, tmp_path):
    path = tmp_path / "lora.safetensors"
    for metadata in (None, {"provenance": "{}"}):
        save_file({"a": torch.ones(1)}, path, metadata=metadata)
        refuse(path, tiny_unet, "is no user adapter: its header says nothing of one")


def test_an_adapter_of_another_base_model_is_refused(tiny_unet, tmp_path):
    path = tmp_path / "psa.safetensors"
    write(path, tiny_unet)
    refuse(path, tiny_unet, "trained on the base model tiny, this is new; train it again", "new")
    metadata, tensors = read(path)
    told = json.loads(metadata["psa"])
    del told["base_revision"]
    save_file(tensors, path, metadata={"psa": json.dumps(told)})
    refuse(path, tiny_unet, "trained on the base model None")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["tokens.embeddings", "space.mean"])
def test_nan_anywhere_is_refused(tiny_unet, tmp_path, where, bad):
    path = tmp_path / "psa.safetensors"
    write(path, tiny_unet)
    metadata, tensors = read(path)
    tensors[where].view(-1)[0] = bad
    save_file(tensors, path, metadata=metadata)
    refuse(path, tiny_unet, f"holds NaN or infinity in {where}; train it again")


def change_header(path, **change):
    metadata, tensors = read(path)
    told = json.loads(metadata["psa"]) | change
    save_file(tensors, path, metadata={"psa": json.dumps(told)})


def test_weights_of_other_sizes_or_layers_are_refused(tiny_unet, tmp_path):
    path = tmp_path / "psa.safetensors"
    write(path, tiny_unet)
    refuse(path, sdxl_unet(), "does not fit this UNet .* it is of another base model")
    change_header(path, adapter={"form": "gated", "tokens": 2, "width": 8})
    refuse(path, tiny_unet, "does not fit this UNet")
    metadata, tensors = read(path)
    write(path, tiny_unet)
    metadata, tensors = read(path)
    tensors.pop("tokens.embeddings")
    save_file(tensors, path, metadata=metadata)
    refuse(path, tiny_unet, "does not fit this UNet")


def test_an_adapter_without_its_space_is_refused(tiny_unet, tmp_path):
    path, fault = tmp_path / "psa.safetensors", "does not say whose vectors it is for"
    write(path, tiny_unet)
    change_header(path, space=None)
    refuse(path, tiny_unet, fault)
    write(path, tiny_unet)
    metadata, tensors = read(path)
    for name in ("space.mean", "space.level.L1"):
        rest = {n: v for n, v in tensors.items() if n != name}
        save_file(rest, path, metadata=metadata)
        refuse(path, tiny_unet, fault)


@pytest.mark.parametrize("change", [{"floor": []}, {"levels": {"L1": [], "L2": CATEGORIES}}])
def test_a_file_whose_floor_was_taken_out_is_refused(tiny_unet, tmp_path, change):
    path = tmp_path / "psa.safetensors"
    write(path, tiny_unet)
    change_header(path, space=SPACE.header() | change)
    refuse(path, tiny_unet, "has no floor, or a level that lets through what it bans for everybody")


def test_the_strength_is_no_part_of_the_file(tiny_unet, tmp_path):
    adapter = PersonalAdapter(tiny_unet, AdapterSettings("attention"), CATEGORIES, SPACE.width)
    adapter.scale = 0.5
    save_adapter(tmp_path / "a", adapter, SPACE, PROVENANCE)
    assert load_adapter(tmp_path / "a", tiny_unet, "tiny").adapter.scale == 1.0


def test_a_space_comes_back_and_equal_ones_are_equal_files(tmp_path):
    contents = set()
    for k in range(4):
        path = tmp_path / str(k) / "space.safetensors"
        save_space(path, make_space())
        contents.add(path.read_bytes())
    assert len(contents) == 1
    loaded = load_space(path)
    same_space(SPACE, loaded)
    assert loaded.level("L2").banned == set(CATEGORIES)
    assert loaded.floor == FLOOR


def test_a_missing_or_damaged_space_is_refused(tmp_path):
    path = tmp_path / "space.safetensors"
    with pytest.raises(InputError, match="missing or damaged.*run `dvc repro simulate_users"):
        load_space(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(InputError, match="space.safetensors does not say whose vectors it is for"):
        load_space(path)
    save_space(path, SPACE)
    metadata, tensors = read(path)
    tensors.pop("space.std")
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match="does not say whose vectors .*'space.std'"):
        load_space(path)
