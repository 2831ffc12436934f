import copy

import pytest
import torch
from safetensors.torch import save_file

from pipeline.artifacts import LORA_FILE
from pipeline.errors import InputError
from pipeline.lora import (
    adapter_off,
    attach_lora,
    extract_lora,
    inputs_through,
    load_lora,
    save_lora,
)

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture
def inputs():
    rng = torch.Generator().manual_seed(1)
    return (torch.randn(2, 4, 4, 4, generator=rng), torch.tensor([10, 500]),
            torch.randn(2, 6, 8, generator=rng))  # fmt: skip


def perturb(parameters):
    rng = torch.Generator().manual_seed(2)
    for parameter in parameters.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng)


@torch.no_grad()
def run(unet, inputs):
    return unet(*inputs).sample


def test_adapter_off_is_the_base_model_exactly_also_after_an_error(tiny_unet, inputs):
    base = run(tiny_unet, inputs)
    perturb(attach_lora(tiny_unet, 2, TARGETS, seed=0))
    changed = run(tiny_unet, inputs)
    assert not torch.equal(changed, base)
    with adapter_off(tiny_unet):
        assert torch.equal(run(tiny_unet, inputs), base)
    with pytest.raises(RuntimeError), adapter_off(tiny_unet):
        raise RuntimeError
    assert torch.equal(run(tiny_unet, inputs), changed)


def test_only_the_adapter_is_trained_in_fp32(tiny_unet):
    parameters = attach_lora(tiny_unet, 2, TARGETS, seed=0)
    trained = {n for n, p in tiny_unet.named_parameters() if p.requires_grad}
    assert trained == parameters.keys()
    assert {p.dtype for p in parameters.values()} == {torch.float32}


def test_initialisation_follows_the_seed_and_leaves_the_global_rng(tiny_unet):
    state = torch.get_rng_state()
    first = attach_lora(copy.deepcopy(tiny_unet), 2, TARGETS, seed=3)
    again = attach_lora(copy.deepcopy(tiny_unet), 2, TARGETS, seed=3)
    other = attach_lora(copy.deepcopy(tiny_unet), 2, TARGETS, seed=4)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not all(torch.equal(first[n], other[n]) for n in first)
    assert torch.equal(state, torch.get_rng_state())


def test_deltas_are_what_the_layers_add(tiny_unet, inputs):
    base = tiny_unet.state_dict()
    parameters = attach_lora(tiny_unet, 2, TARGETS, seed=0)
    perturb(parameters)
    changed = run(tiny_unet, inputs)
    lora = extract_lora(parameters)
    from diffusers import UNet2DConditionModel

    fused = UNet2DConditionModel.from_config(tiny_unet.config)
    fused.load_state_dict({
        k: v + lora[k.removesuffix(".weight")].delta if k.removesuffix(".weight") in lora else v
        for k, v in base.items()
    })  # fmt: skip
    assert torch.allclose(run(fused, inputs), changed, atol=1e-5)


def test_inputs_through_a_matrix_equal_that_matrix_folded_into_down(tiny_unet, inputs):
    parameters = attach_lora(tiny_unet, 2, TARGETS, seed=0)
    perturb(parameters)
    rng = torch.Generator().manual_seed(3)
    lora = extract_lora(parameters)
    maps = {n: torch.randn(v.down.shape[1], v.down.shape[1], generator=rng)
            for n, v in lora.items()}  # fmt: skip
    plain = run(tiny_unet, inputs)
    with inputs_through(tiny_unet, maps):
        mapped = run(tiny_unet, inputs)
    assert torch.equal(run(tiny_unet, inputs), plain)
    assert not torch.allclose(mapped, plain, atol=1e-3)
    for name, parameter in parameters.items():
        layer, _, kind = name.rpartition(".lora_")
        if kind.startswith("A"):
            # the hook gives (h M) A^T, which is h (A M^T)^T
            parameter.data = parameter.data @ maps[layer].T
    assert torch.allclose(run(tiny_unet, inputs), mapped, atol=1e-4)


def test_a_file_comes_back_with_its_provenance(tiny_unet, tmp_path):
    parameters = attach_lora(tiny_unet, 2, TARGETS, seed=0)
    perturb(parameters)
    lora = extract_lora(parameters)
    save_lora(tmp_path, lora, {"categories": ["hate"]})
    loaded, provenance = load_lora(tmp_path)
    assert provenance == {"categories": ["hate"]}
    assert loaded.keys() == lora.keys()
    assert all(torch.equal(loaded[k].delta, lora[k].delta) for k in lora)


def test_equal_loras_are_equal_files(tiny_unet, tmp_path):
    lora = extract_lora(attach_lora(tiny_unet, 2, TARGETS, seed=0))
    contents = set()
    for k in range(8):
        save_lora(tmp_path / str(k), lora, {"b": 1, "a": [2]})
        contents.add((tmp_path / str(k) / LORA_FILE).read_bytes())
    assert len(contents) == 1


def test_plain_diffusers_loads_the_file(tiny_unet, tmp_path, inputs):
    from diffusers import StableDiffusionPipeline

    base = copy.deepcopy(tiny_unet)
    parameters = attach_lora(tiny_unet, 3, TARGETS, seed=0)
    perturb(parameters)
    save_lora(tmp_path, extract_lora(parameters), {})
    state, _ = StableDiffusionPipeline.lora_state_dict(str(tmp_path))
    base.load_lora_adapter(state, prefix="unet")
    assert torch.allclose(run(base, inputs), run(tiny_unet, inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("to_x", "matches no layer"),
        ("proj_in", "names Conv2d layers"),
        ("norm1", "names .*Norm layers"),
    ],
)
def test_targets_that_cannot_be_trained_and_merged_are_named(tiny_unet, target, fault):
    with pytest.raises(InputError, match=rf"experts\.lora\.targets: {target} {fault}"):
        attach_lora(tiny_unet, 2, ["to_q", target], seed=0)  # peft passes over it if others match
    assert not any("lora" in name for name, _ in tiny_unet.named_parameters())


def test_a_foreign_or_broken_file_is_refused(tmp_path):
    path = tmp_path / "pytorch_lora_weights.safetensors"
    with pytest.raises(InputError, match="missing or damaged"):
        load_lora(tmp_path)
    save_file({"unet.a.lora_A.weight": torch.ones(1, 1)}, path)
    with pytest.raises(InputError, match="no provenance"):
        load_lora(tmp_path)
    save_file({"unet.a.lora_A.weight": torch.tensor([[float("nan")]])}, path,
              metadata={"provenance": "{}"})  # fmt: skip
    with pytest.raises(InputError, match="NaN or infinity in unet.a.lora_A"):
        load_lora(tmp_path)
