import copy
import inspect

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.lora import LoraLayer, attach_lora, extract_lora, lora_scale
from pipeline.merging.calibration import MergeCalibration
from pipeline.merging.lowrank import scale_lora
from pipeline.merging.methods import MERGE_METHODS, MergeRecipe, merge_experts
from pipeline.nullspace.moments import Moments, Winners
from pipeline.params.merging import MergeMethods
from tests.merging.examples import LAYERS, calibration_of, layer, moments, random_expert

DENSITY = {"ties": {"density": 1.0}, "dare": {"density": 1.0}}


def recipe(method, **options):
    """The recipe under which nothing of an expert is thrown away."""
    rank = 4 if method == "svd" else None
    return MergeRecipe.of(method, {"rank": rank, **DENSITY.get(method, {}), **options})


def merged(experts, method, calibration=None, seed=0, **options):
    return merge_experts(experts, recipe(method, **options), calibration, seed).lora


def two(one, other):
    return {"a": {"l": layer(one)}, "b": {"l": layer(other)}}


def close(one, other, atol=1e-5):
    assert one.keys() == other.keys()
    return all(torch.allclose(one[k].delta, other[k].delta, atol=atol) for k in one)


# identities that hold for every method


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_one_expert_with_weight_1_is_itself(method):
    expert = random_expert(0)
    assert close(merged({"a": expert}, method, calibration_of({"a": expert})), expert)


@pytest.mark.parametrize("method", sorted(set(MERGE_METHODS) - {"svd"}))
def test_one_expert_beside_an_empty_one_is_itself_by_the_methods_own_arithmetic(method):
    # no short cut here: two experts go through the method; the mean of two halves what is there
    experts = {"a": random_expert(0), "b": scale_lora(random_expert(1), 0.0)}
    factor = 0.5 if method == "average" else 1.0
    options = {"benign_weight": 0.0, "ridge": 1e-9} if method == "regmean" else {}
    if method == "regmean":  # which keeps an expert on its own inputs, so let there be no others
        known = calibration_of(experts)
        silent = Moments({k: 0 * v for k, v in known.benign.matrices.items()}, known.benign.leaders)
        calibration = MergeCalibration(known.benign, known.unsafe | {"b": silent}, known.winners)
    else:
        calibration = calibration_of(experts)
    found = merged(experts, method, calibration, **options)
    assert close(found, scale_lora(experts["a"], factor), atol=1e-4)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_no_expert_is_the_base_model(method):
    assert merge_experts({}, recipe(method)).lora == {}


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_the_order_of_experts_does_not_matter(method):
    experts = {k: random_expert(n) for n, k in enumerate("abc")}
    turned = {k: experts[k] for k in "cab"}
    options = {"density": 0.5} if method in DENSITY else {}
    calibration = calibration_of(experts)
    one = merged(experts, method, calibration, **options)
    other = merged(turned, method, calibration, **options)
    assert all(torch.equal(one[k].delta, other[k].delta) for k in one)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_strength_scales_the_merged_delta(method):
    experts = {k: random_expert(n) for n, k in enumerate("ab")}
    calibration = calibration_of(experts)
    whole = merged(experts, method, calibration)
    half = merged(experts, method, calibration, strength=0.5)
    assert close(half, scale_lora(whole, 0.5))


@pytest.mark.parametrize("method", sorted(set(MERGE_METHODS) - {"svd"}))
def test_experts_of_different_ranks_merge_as_their_deltas_do(method):
    rng = torch.Generator().manual_seed(0)
    experts = {"a": random_expert(0, rank=1), "b": random_expert(1, rank=3)}
    # the same deltas, with factors of a higher rank
    padded = {
        name: {k: LoraLayer(torch.cat([v.down, torch.randn(2, 5, generator=rng)]),
                            torch.cat([v.up, torch.zeros(6, 2)], 1)) for k, v in lora.items()}
        for name, lora in experts.items()
    }  # fmt: skip
    calibration = calibration_of(experts)
    found = merged(experts, method, calibration, rank=5)  # no dense delta has more
    assert close(found, merged(padded, method, calibration, rank=5))


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_an_expert_without_a_layer_adds_nothing_there(method):
    experts = {"a": random_expert(0), "b": random_expert(1, layers=LAYERS[:1])}
    filled = {"a": experts["a"], "b": experts["b"] | scale_lora(random_expert(2), 0.0) |
              experts["b"]}  # fmt: skip
    calibration = calibration_of(filled)
    assert close(merged(experts, method, calibration), merged(filled, method, calibration))


@pytest.mark.parametrize("settings", [
    {"alpha": 8.0}, {"alpha": 1.0}, {"rslora": True}, {"alpha": 8.0, "rslora": True},
])  # fmt: skip
@pytest.mark.parametrize("method", ["weighted", "max_magnitude"])
def test_experts_trained_at_different_scales_count_as_peft_counts_them(tiny_unet, settings, method):
    experts, theirs = {}, []
    for name, rank, own in (("a", 4, settings), ("b", 2, {})):
        carrier = copy.deepcopy(tiny_unet)
        parameters = attach_lora(carrier, rank, ["to_q"], 0, **own)
        rng = torch.Generator().manual_seed(rank)
        for parameter in parameters.values():
            parameter.data = torch.randn(parameter.shape, generator=rng)
        experts[name] = extract_lora(parameters, lora_scale(rank, **own))
        theirs.append({n: m.get_delta_weight("default") for n, m in carrier.named_modules()
                       if n in experts[name]})  # fmt: skip
    found = merged(experts, method, rank=8)
    for name, one in theirs[0].items():
        both = torch.stack([one, theirs[1][name]])
        largest = both.gather(0, both.abs().argmax(0, keepdim=True))[0]
        expected = both.sum(0) if method == "weighted" else largest
        assert torch.allclose(found[name].delta, expected, atol=1e-4)


def test_the_scale_of_a_trained_delta():
    assert lora_scale(4) == 1.0
    assert lora_scale(4, alpha=8.0) == 2.0 and lora_scale(4, alpha=1.0) == 0.25
    assert lora_scale(4, rslora=True) == 2.0 and lora_scale(4, 8.0, True) == 4.0


# worked by hand, or against a plain computation


def winners_of(*rows):
    """Winners of one layer "l", by row."""
    table = torch.zeros(2, len(rows))
    for j, expert in enumerate(rows):
        table[expert, j] = 1
    nothing = Moments({}, {})
    return MergeCalibration(nothing, {}, Winners("ab", {"l": table}, {"l": table}))


def test_co_merge_by_hand():
    experts = two([[1, 0], [0, 2]], [[2, 0], [0, 1]])
    assert merged(experts, "co_merge", winners_of(1, 0))["l"].delta.tolist() == [[2, 0], [0, 2]]
    assert merged(experts, "co_merge", winners_of(0, 1))["l"].delta.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("activation", ["count", "magnitude"])
def test_co_merge_is_the_dense_row_selection(activation):
    experts = {k: random_expert(n) for n, k in enumerate("abcd")}
    calibration = calibration_of(experts)
    found = merged(experts, "co_merge", calibration, activation=activation)
    for name in LAYERS:
        winners = calibration.winners.rows(name, activation).tolist()
        assert len(set(winners)) > 1
        dense = torch.stack([experts["abcd"[w]][name].delta[j] for j, w in enumerate(winners)])
        assert torch.allclose(found[name].delta, dense, atol=1e-6)
        assert found[name].down.shape[0] == 4 * 2  # rank n r


def test_average_and_weighted_sum_by_hand():
    experts = two([[2, 0], [4, -2]], [[0, 6], [0, 2]])
    assert merged(experts, "average")["l"].delta.tolist() == [[1, 3], [2, 0]]
    assert merged(experts, "weighted")["l"].delta.tolist() == [[2, 6], [4, 0]]
    half = {"a": experts["a"], "b": scale_lora(experts["b"], 0.5)}
    assert merged(half, "weighted")["l"].delta.tolist() == [[2, 3], [4, -1]]


def test_max_magnitude_by_hand():
    experts = two([[2, -5], [1, -2]], [[-3, 4], [1, 3]])
    assert np.allclose(merged(experts, "max_magnitude")["l"].delta, [[-3, -5], [1, 3]], atol=1e-5)


def test_ties_by_hand():
    # half of the entries are kept: a keeps 4 and -2, b keeps 6 and 2. Signs of the sums: + on the
    # whole first row, + for 4, 0 for -2 + 2, where no entry has the elected sign.
    experts = two([[1, 0], [4, -2]], [[0, 6], [1, 2]])
    assert np.allclose(merged(experts, "ties", density=0.5)["l"].delta, [[0, 6], [4, 0]], atol=1e-5)
    # nothing trimmed: entries that agree with the sign of the sum are averaged, zeros left out
    experts = two([[3, -1], [2, 5]], [[1, 4], [0, -2]])
    assert np.allclose(merged(experts, "ties", density=1.0)["l"].delta, [[2, 4], [2, 5]], atol=1e-5)


def test_dare_drops_rescales_and_is_right_on_average():
    experts = {k: random_expert(n) for n, k in enumerate("ab")}
    whole = merged(experts, "weighted")
    assert close(merged(experts, "dare", density=1.0), whole, atol=1e-4)
    dense = [
        MERGE_METHODS["dare"](_layer(experts, "x.to_q", seed), density=0.5) for seed in range(400)
    ]
    assert torch.allclose(torch.stack(dense).mean(0), whole["x.to_q"].delta, atol=0.35)
    one = MERGE_METHODS["dare"](_layer({"a": experts["a"]}, "x.to_q", 0), density=0.5)
    doubled = 2 * experts["a"]["x.to_q"].delta
    assert ((one == 0) | torch.isclose(one, doubled)).all() and 0 < (one == 0).float().mean() < 1


def test_the_draw_of_dare_follows_seed_expert_and_layer():
    experts = {k: random_expert(n) for n, k in enumerate("ab")}
    first, again, other = (
        MERGE_METHODS["dare"](_layer(experts, "x.to_q", seed), density=0.5) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    alone = MERGE_METHODS["dare"](_layer({"a": experts["a"]}, "x.to_q", 0), density=0.5)
    b = MERGE_METHODS["dare"](_layer({"b": experts["b"]}, "x.to_q", 0), density=0.5)
    assert torch.allclose(first, alone + b)  # one more expert does not redraw the others


def _layer(experts, name, seed):
    from pipeline.merging.methods import MergeLayer

    return MergeLayer(name, {k: v[name] for k, v in experts.items()}, None, seed)


def test_svd_is_the_best_of_its_rank():
    experts = {k: random_expert(n) for n, k in enumerate("abc")}
    whole = merged(experts, "weighted")["x.to_q"].delta
    found = merge_experts({k: {"x.to_q": v["x.to_q"]} for k, v in experts.items()},
                          recipe("svd", rank=2))  # fmt: skip
    values = torch.linalg.svdvals(whole).square()
    left = float((whole - found.lora["x.to_q"].delta).square().sum())
    assert left == pytest.approx(float(values[2:].sum()), rel=1e-4)
    assert found.energy_kept == pytest.approx(float(values[:2].sum() / values.sum()), rel=1e-5)


@pytest.mark.parametrize("benign_weight", [0.0, 0.7])
def test_regmean_is_the_solution_of_the_normal_equations(benign_weight):
    experts = {k: random_expert(n) for n, k in enumerate("abc")}
    known = calibration_of(experts)
    found = merged(experts, "regmean", known, benign_weight=benign_weight, ridge=1e-3)
    for name in LAYERS:
        grams = [known.unsafe[k][name].numpy() for k in "abc"]
        left = sum(grams) + benign_weight * known.benign[name].numpy()
        left = left + 1e-3 * np.trace(left) / len(left) * np.eye(len(left))
        right = sum(experts[k][name].delta.double().numpy() @ g
                    for k, g in zip("abc", grams, strict=True))  # fmt: skip
        assert np.allclose(found[name].delta, np.linalg.solve(left.T, right.T).T, atol=1e-4)
        assert found[name].down.shape[0] == 3 * 2


def test_regmean_serves_each_expert_on_its_own_inputs_and_no_one_on_benign_ones():
    # a's prompts use input 0, b's input 1, benign ones input 2
    experts = two([[1, 5, 5], [2, 5, 5]], [[7, 3, 7], [7, 4, 7]])
    units = [Moments({"l": torch.diag(torch.eye(3)[k]).double()}, {"l": "l"}) for k in range(3)]
    known = MergeCalibration(units[2], {"a": units[0], "b": units[1]}, Winners("ab", {}, {}))
    found = merged(experts, "regmean", known, ridge=1e-9)["l"].delta
    assert np.allclose(found, [[1, 3, 0], [2, 4, 0]], atol=1e-4)


def test_a_rank_cuts_any_method_and_reports_what_it_kept():
    experts = {k: random_expert(n) for n, k in enumerate("abc")}
    calibration = calibration_of(experts)
    for method in MERGE_METHODS:
        whole = merge_experts(experts, recipe(method, rank=6), calibration)
        cut = merge_experts(experts, recipe(method, rank=1), calibration)
        assert {len(v.down) for v in cut.lora.values()} == {1}
        assert 0.1 < cut.energy_kept < 0.95
        if method != "svd":
            assert whole.energy_kept == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_params_have_the_options_of_the_method_and_no_others(method):
    section = MergeMethods.model_fields[method].annotation.__args__[0]
    takes = {p.name for p in inspect.signature(MERGE_METHODS[method]).parameters.values()
             if p.kind is p.KEYWORD_ONLY}  # fmt: skip
    assert section.model_fields.keys() - {"strength", "rank"} == takes


# bad input


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown merge method 'tis'; known: co_merge, max_magn"):
        MergeRecipe("tis")
    with pytest.raises(InputError, match="svd needs a rank"):
        MergeRecipe("svd")


def test_an_unknown_activation_is_named():
    experts = {k: random_expert(n) for n, k in enumerate("ab")}
    with pytest.raises(InputError, match="unknown activation 'most'; known: count, magnitude"):
        merged(experts, "co_merge", calibration_of(experts), activation="most")
    assert moments(0, experts["a"])["x.to_q"].shape == (5, 5)
