import copy
import dataclasses

import pytest
import torch

from pipeline.calibration import (
    Calibration,
    WinnerCounts,
    benign_moments,
    count_winners,
    own_activation,
)
from pipeline.diffusion import NoiseSchedule
from pipeline.errors import InputError
from pipeline.lora import LoraLayer, attach_lora, extract_lora
from pipeline.merge import (
    MERGE_METHODS,
    average,
    co_merge,
    describe_merge,
    equalise_experts,
    merge_experts,
    merge_provenance,
    project_experts,
    winning_rows,
)


def layer(matrix):
    """A LoRA layer whose delta is the given matrix: up is the matrix, down the identity."""
    matrix = torch.tensor(matrix, dtype=torch.float32)
    return LoraLayer(torch.eye(matrix.shape[1]), matrix)


def random_expert(seed, rank=2, d_in=5, d_out=6):
    rng = torch.Generator().manual_seed(seed)
    return {
        name: LoraLayer(torch.randn(rank, d_in, generator=rng),
                        torch.randn(d_out, rank, generator=rng))
        for name in ("x.to_q", "x.to_k")
    }  # fmt: skip


def counts_of(experts, seed=9, inputs=40):
    counts = WinnerCounts(experts)
    rng = torch.Generator().manual_seed(seed)
    for name in experts[0]:
        counts.add(name, torch.randn(inputs, experts[0][name].down.shape[1], generator=rng))
    return counts


def test_winner_counts_by_hand():
    # inputs (1, 0), (0, 1), (1, 1); rows of expert 1: |h0|, |2 h1|; of expert 2: |2 h0|, |h1|
    experts = [{"l": layer([[1, 0], [0, 2]])}, {"l": layer([[2, 0], [0, 1]])}]
    counts = WinnerCounts(experts)
    counts.add("l", torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))  # any leading shape
    counts.add("l", torch.tensor([[1.0, 1.0]]))
    # row 0: expert 2 wins inputs 1 and 3; input 2 is 0 = 0, to the lower index. Row 1 mirrored.
    assert counts.counts["l"].tolist() == [[1, 3], [2, 0]]
    assert counts.sums["l"].tolist() == [[2.0, 4.0], [4.0, 2.0]]
    assert winning_rows(counts, "l").tolist() == [1, 0]
    merged = co_merge(experts, counts)["l"].delta
    assert merged.tolist() == [[2, 0], [0, 2]]


def test_ties_go_to_the_larger_activation_then_to_the_lower_index():
    counts = WinnerCounts([])
    counts.counts["l"] = torch.tensor([[2, 2], [2, 2]])
    counts.sums["l"] = torch.tensor([[1.0, 3.0], [1.5, 3.0]], dtype=torch.float64)
    assert winning_rows(counts, "l").tolist() == [1, 0]


def test_co_merge_is_the_dense_row_selection():
    experts = [random_expert(k) for k in range(4)]
    counts = counts_of(experts)
    merged = co_merge(experts, counts)
    for name in experts[0]:
        winners = winning_rows(counts, name)
        assert len(set(winners.tolist())) > 1
        dense = torch.stack([experts[w][name].delta[j] for j, w in enumerate(winners)])
        assert torch.allclose(merged[name].delta, dense, atol=1e-6)
        assert merged[name].down.shape[0] == 4 * 2  # rank n r


def test_average_by_hand():
    experts = [{"l": layer([[2, 0], [4, -2]])}, {"l": layer([[0, 6], [0, 2]])}]
    assert average(experts, WinnerCounts(experts))["l"].delta.tolist() == [[1, 3], [2, 0]]


def test_task_arithmetic_by_hand_and_at_half_strength():
    experts = {"a": {"l": layer([[2, 0], [4, -2]])}, "b": {"l": layer([[0, 6], [0, 2]])}}
    counts = WinnerCounts(list(experts.values()))
    whole = merge_experts(experts, "task_arithmetic", counts)
    half = merge_experts(experts, "task_arithmetic", counts, strength=0.5)
    assert whole["l"].delta.tolist() == [[2, 6], [4, 0]]
    assert half["l"].delta.tolist() == [[1, 3], [2, 0]]


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_one_expert_merges_to_itself(method):
    expert = random_expert(0)
    merged = merge_experts({"a": expert}, method, counts_of([expert]))
    assert all(torch.allclose(merged[k].delta, expert[k].delta, atol=1e-6) for k in expert)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_the_order_of_experts_does_not_matter(method):
    experts = {k: random_expert(n) for n, k in enumerate("abc")}
    turned = {k: experts[k] for k in "cab"}
    one = merge_experts(experts, method, counts_of(list(experts.values())))
    other = merge_experts(turned, method, counts_of(list(turned.values())))
    assert all(torch.allclose(one[k].delta, other[k].delta, atol=1e-6) for k in one)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_experts_of_different_ranks_merge(method):
    experts = {"a": random_expert(0, rank=1), "b": random_expert(1, rank=3)}
    merged = merge_experts(experts, method, counts_of(list(experts.values())))
    assert merged["x.to_q"].down.shape[0] == 4


def test_experts_that_do_not_fit_are_named():
    fits, other = random_expert(0), random_expert(1, d_in=4)
    with pytest.raises(InputError, match="no experts"):
        merge_experts({}, "average", None)
    with pytest.raises(InputError, match=r"x.to_q: expert a has shape \(6, 5\), b \(6, 4\)"):
        merge_experts({"a": fits, "b": other}, "average", None)
    with pytest.raises(InputError, match="a and b differ in layers, first in x.to_q"):
        merge_experts({"a": fits, "b": {"x.to_k": fits["x.to_k"]}}, "average", None)
    with pytest.raises(
        InputError, match="unknown merge method 'tis'; known: co_merge, average, task_arithmetic"
    ):
        merge_experts({"a": fits}, "tis", None)


def test_experts_of_different_base_models_are_refused():
    with pytest.raises(InputError, match="different base models"):
        merge_provenance({"a": {"base_revision": "1"}, "b": {"base_revision": "2"}}, "average")


def test_calibration_sees_what_the_layers_see(tiny_unet, tiny_latents, alphas_cumprod):
    experts = {}
    for seed, name in enumerate(("a", "b")):
        carrier = copy.deepcopy(tiny_unet)
        parameters = attach_lora(carrier, 2, ["to_q", "to_v"], seed=seed)
        rng = torch.Generator().manual_seed(seed)
        for p in parameters.values():
            p.data = torch.randn(p.shape, generator=rng)
        experts[name] = extract_lora(parameters)
    calibration = calibration_of(tiny_unet, tiny_latents, alphas_cumprod)
    counts = count_winners(experts, calibration)
    assert counts.counts.keys() == experts["a"].keys()
    for name, table in counts.counts.items():
        # text tokens, or 4x4 latents, 2x2 in the middle block
        tokens = 6 if "attn2.to_v" in name else 4 if "mid_block" in name else 16
        assert (table.sum(0) == 2 * 2 * 3 * tokens).all()  # categories, timesteps, prompts
    again = count_winners(experts, calibration)
    assert all(torch.equal(counts.counts[k], again.counts[k]) for k in counts.counts)
    assert not any(m._forward_pre_hooks for m in tiny_unet.modules())
    with pytest.raises(InputError, match="calibration asks for 9; lower merge.calibration_prompts"):
        count_winners(experts, dataclasses.replace(calibration, prompts=9))


def calibration_of(unet, latents, alphas_cumprod):
    return Calibration(
        unet, {"a": latents, "b": latents}, NoiseSchedule(alphas_cumprod, "epsilon"), 3, [100, 700],
        0, "merge", "merge.calibration_prompts", batch=4,
    )  # fmt: skip


def test_benign_moments_are_those_of_safe_and_benign_prompts(
    tiny_unet, tiny_latents, alphas_cumprod
):
    latents = dataclasses.replace(tiny_latents, benign_prompt=torch.tensor([0, 1]))
    calibration = dataclasses.replace(calibration_of(tiny_unet, latents, alphas_cumprod), prompts=4)
    layer = next(n for n, _ in tiny_unet.named_modules() if n.endswith("attn2.to_v"))
    moment = benign_moments([layer], calibration)[layer]

    def moment_of(prompts):  # text layers see the prompts as they are
        tokens = tiny_latents.prompt_embeds[prompts].reshape(-1, 8).double()
        return tokens.T @ tokens / len(tokens)

    safe, empty, benign = moment_of(tiny_latents.chosen_prompt), moment_of([0]), moment_of([1])
    # half safe prompts, half benign ones; of these at least a quarter are the empty prompt
    rest = (moment - safe / 2) * 2
    share = ((rest - benign) / (empty - benign)).mean()
    assert 0.25 <= share < 1
    assert torch.allclose(rest, share * empty + (1 - share) * benign, atol=1e-5)


def test_projected_experts_keep_off_benign_inputs(tiny_unet, tiny_latents, alphas_cumprod):
    calibration = calibration_of(tiny_unet, tiny_latents, alphas_cumprod)
    layer = next(n for n, _ in tiny_unet.named_modules() if n.endswith("attn2.to_v"))
    rng = torch.Generator().manual_seed(0)
    expert = {layer: LoraLayer(torch.randn(2, 8, generator=rng), torch.randn(8, 2, generator=rng))}
    benign = tiny_latents.prompt_embeds[tiny_latents.chosen_prompt].reshape(-1, 8).float()
    sizes = [
        (benign @ project_experts({"a": expert}, calibration, damping)["a"][layer].delta.T).norm()
        for damping in (None, 1.0, 0.01)
    ]
    assert sizes[1] < 0.7 * sizes[0] and sizes[2] < 0.05 * sizes[0]
    assert project_experts({"a": expert}, calibration, None) == {"a": expert}


def test_equalised_experts_answer_equally_strongly(tiny_unet, tiny_latents, alphas_cumprod):
    calibration = calibration_of(tiny_unet, tiny_latents, alphas_cumprod)
    layer = next(n for n, _ in tiny_unet.named_modules() if n.endswith("attn2.to_v"))
    rng = torch.Generator().manual_seed(0)
    weak, strong = ({layer: LoraLayer(torch.randn(2, 8, generator=rng),
                                      size * torch.randn(8, 2, generator=rng))}
                    for size in (0.1, 1.0))  # fmt: skip
    before = own_activation({"a": weak, "b": strong}, calibration)
    assert before["b"] > 3 * before["a"]
    equal, scales = equalise_experts({"a": weak, "b": strong}, calibration)
    after = own_activation(equal, calibration)
    assert after["a"] == pytest.approx(after["b"], rel=1e-3)
    assert scales["a"] * scales["b"] == pytest.approx(1.0, rel=1e-3)
    assert after["a"] == pytest.approx((before["a"] * before["b"]) ** 0.5, rel=1e-3)
    idle = {layer: LoraLayer(weak[layer].down, torch.zeros(8, 2))}
    with pytest.raises(InputError, match="expert b changes nothing"):
        equalise_experts({"a": weak, "b": idle}, calibration)


def test_own_activation_by_hand(tiny_unet, tiny_latents, alphas_cumprod):
    # text layers see the unsafe prompts as they are; the delta 2 I doubles them
    layer = next(n for n, _ in tiny_unet.named_modules() if n.endswith("attn2.to_v"))
    calibration = dataclasses.replace(
        calibration_of(tiny_unet, tiny_latents, alphas_cumprod), prompts=4
    )
    expert = {layer: LoraLayer(torch.eye(8), 2 * torch.eye(8))}
    tokens = tiny_latents.prompt_embeds[tiny_latents.rejected_prompt].float()
    expected = 2 * tokens.square().mean().sqrt().item()
    assert own_activation({"a": expert}, calibration)["a"] == pytest.approx(expected, rel=1e-4)


def test_the_description_adds_up():
    experts = {k: random_expert(n) for n, k in enumerate("abc")}
    counts = counts_of(list(experts.values()))
    merged = {"average": average(list(experts.values()), counts)}
    described = describe_merge(experts, merged, counts)
    assert sum(described["rows_won"].values()) == pytest.approx(1.0)
    assert described["rows_won"].keys() == experts.keys()
    silent = {k: {n: LoraLayer(v.down, v.up * (torch.arange(6) > 1)[:, None])
                  for n, v in e.items()} for k, e in experts.items()}  # fmt: skip
    unwritten = describe_merge(silent, {}, counts_of(list(silent.values())))
    assert sum(unwritten["rows_won"].values()) == pytest.approx(4 / 6, abs=1e-3)
    assert -1 <= described["mean_pairwise_cosine"] <= 1
    assert described["merged_norm"]["average"] < max(described["expert_norm"].values())
