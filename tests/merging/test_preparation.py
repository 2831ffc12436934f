import pytest
import torch

from pipeline.errors import InputError
from pipeline.lora import LoraLayer, save_lora
from pipeline.merging.lowrank import scale_lora
from pipeline.merging.preparation import (
    Preparation,
    check_experts,
    choose_experts,
    complete_experts,
    equalise_experts,
    load_experts,
    own_activation,
    prepare_experts,
)
from pipeline.nullspace.moments import Moments
from tests.merging.examples import LAYERS, layer, moments, random_expert

MADE = {"base_revision": "r1", "base_model": "m"}


@pytest.fixture
def experts():
    return {k: random_expert(n) for n, k in enumerate("abc")}


@pytest.fixture
def unsafe(experts):
    return {name: moments(10 * k, lora) for k, (name, lora) in enumerate(experts.items())}


def saved(folder, experts, **made):
    folders = {name: folder / name for name in experts}
    for name, lora in experts.items():
        save_lora(folders[name], lora, MADE | made.get(name, {}))
    return folders


def test_experts_come_back_from_their_files(tmp_path, experts):
    loaded, provenances = load_experts(saved(tmp_path, experts))
    for name, lora in experts.items():
        assert provenances[name] == MADE
        assert all(torch.equal(loaded[name][k].delta, lora[k].delta) for k in lora)


def test_experts_of_different_base_models_are_named_by_file(tmp_path, experts):
    folders = saved(tmp_path, experts, b={"base_revision": "r2"})
    with pytest.raises(InputError, match=f"{folders['a']} of r1, {folders['b']} of r2"):
        load_experts(folders)


def test_experts_of_different_shapes_are_named_by_file(tmp_path, experts):
    folders = saved(tmp_path, experts | {"b": random_expert(1, d_in=4)})
    with pytest.raises(InputError, match=rf"x.to_k: {folders['a']} has shape \(6, 5\), "
                                         rf"{folders['b']} \(6, 4\)"):  # fmt: skip
        load_experts(folders)


def test_experts_without_provenance_with_nan_or_with_an_alpha_are_named(tmp_path, experts):
    from safetensors.torch import save_file

    path = tmp_path / "a" / "pytorch_lora_weights.safetensors"
    path.parent.mkdir()
    good = {"unet.x.lora_A.weight": torch.ones(1, 2), "unet.x.lora_B.weight": torch.ones(2, 1)}
    save_file(good, path)
    with pytest.raises(InputError, match=f"{path} has no provenance"):
        load_experts({"a": path.parent})
    save_file(good | {"unet.x.alpha": torch.tensor(4.0)}, path, {"provenance": "{}"})
    with pytest.raises(InputError, match=f"{path} holds unet.x.alpha"):
        load_experts({"a": path.parent})
    save_file({"unet.x.lora_A.weight": torch.ones(1, 2)}, path, {"provenance": "{}"})
    with pytest.raises(InputError, match="layer unet.x does not have lora_A .* and lora_B"):
        load_experts({"a": path.parent})
    save_file(good, path, {"provenance": "{}"})
    with pytest.raises(InputError, match=f"{path.parent} lacks base_revision.*train_expert@a"):
        load_experts({"a": path.parent})
    save_lora(tmp_path / "b", {"x": layer([[float("nan")]])}, MADE)
    with pytest.raises(InputError, match="holds NaN or infinity in unet.x.lora_B.weight"):
        load_experts({"b": tmp_path / "b"})


def test_a_dora_is_named_by_file(tmp_path):
    dora = {"x": LoraLayer(torch.ones(1, 2), torch.ones(2, 1), torch.ones(2))}
    with pytest.raises(InputError, match=f"{tmp_path / 'a'} is a DoRA and cannot be merged"):
        load_experts(saved(tmp_path, {"a": dora}))


def test_a_missing_layer_is_a_delta_of_nothing():
    experts = {"b": random_expert(0), "a": random_expert(1, layers=LAYERS[:1])}
    check_experts(experts)
    complete = complete_experts(experts)
    assert list(complete) == ["a", "b"]
    assert complete["a"].keys() == complete["b"].keys() == set(LAYERS)
    assert torch.equal(complete["a"]["x.to_q"].delta, torch.zeros(6, 5))


def test_a_weight_of_0_leaves_an_expert_out_and_patterns_choose_layers(experts):
    chosen = choose_experts(experts, Preparation(weights={"b": 0.0}, layers=["*to_q"]))
    assert list(chosen) == ["a", "c"]
    assert all(list(lora) == ["x.to_q"] for lora in chosen.values())
    with pytest.raises(InputError, match="merge.weights names 'z', which has no expert; .* a, b"):
        choose_experts(experts, Preparation(weights={"z": 1.0}))
    with pytest.raises(InputError, match=r"'\*conv' of merge.layers matches no layer .* x.to_k"):
        choose_experts(experts, Preparation(layers=["*to_q", "*conv"]))
    with pytest.raises(InputError, match="no expert is left: that is the base model"):
        choose_experts(experts, Preparation(weights={"a": 0, "b": 0, "c": 0}))


def test_nothing_is_changed_unless_it_is_asked_for(experts, unsafe):
    prepared, scales = prepare_experts(experts, unsafe["a"], unsafe, Preparation())
    assert scales == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert all(torch.equal(prepared[e][k].delta, experts[e][k].delta)
               for e in experts for k in LAYERS)  # fmt: skip


def test_weights_scale_the_deltas_after_they_were_made_equal(experts, unsafe):
    plain, before = prepare_experts(experts, unsafe["a"], unsafe, Preparation(equalise=True))
    half, scales = prepare_experts(
        experts, unsafe["a"], unsafe, Preparation(equalise=True, weights={"b": 0.5})
    )
    assert scales == before | {"b": before["b"] / 2}
    assert torch.allclose(half["b"]["x.to_q"].delta, plain["b"]["x.to_q"].delta / 2)
    assert torch.equal(half["a"]["x.to_q"].delta, plain["a"]["x.to_q"].delta)


def test_own_activation_is_the_root_mean_square_of_what_is_added(experts):
    inputs = {name: torch.randn(30, 5, generator=torch.Generator().manual_seed(k)).double()
              for k, name in enumerate(LAYERS)}  # fmt: skip
    seen = Moments({k: h.T @ h / 30 for k, h in inputs.items()}, {k: k for k in inputs})
    lora = experts["a"]
    added = [(h @ lora[k].delta.double().T).square().mean() for k, h in inputs.items()]
    assert own_activation(lora, seen) == pytest.approx(float(sum(added) / 2) ** 0.5, rel=1e-6)


def test_equalised_experts_answer_equally_strongly(experts, unsafe):
    experts = experts | {"a": scale_lora(experts["a"], 0.1)}
    before = {k: own_activation(experts[k], unsafe[k]) for k in experts}
    assert max(before.values()) > 3 * min(before.values())
    prepared, scales = prepare_experts(experts, unsafe["a"], unsafe, Preparation(equalise=True))
    after = {k: own_activation(prepared[k], unsafe[k]) for k in experts}
    assert max(after.values()) == pytest.approx(min(after.values()), rel=1e-3)
    assert scales["a"] * scales["b"] * scales["c"] == pytest.approx(1.0, rel=1e-3)


def test_an_expert_that_does_nothing_is_named(experts, unsafe):
    with pytest.raises(InputError, match="expert b changes nothing"):
        equalise_experts(experts | {"b": scale_lora(experts["b"], 0.0)}, unsafe)


def test_projected_experts_keep_off_benign_inputs(experts, unsafe):
    rng = torch.Generator().manual_seed(0)
    plane = torch.randn(40, 2, generator=rng) @ torch.randn(2, 5, generator=rng)  # of 5 dimensions
    benign = Moments(dict.fromkeys(LAYERS, (plane.T @ plane / 40).double()),
                     {k: k for k in LAYERS})  # fmt: skip

    def sizes(damping):
        prepared, _ = prepare_experts(experts, benign, unsafe, Preparation(null_damping=damping))
        return (plane @ prepared["a"]["x.to_q"].delta.T).norm()

    assert sizes(1.0) < 0.9 * sizes(None)
    assert sizes(0.001) < 0.01 * sizes(None)
