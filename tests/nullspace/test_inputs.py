import copy
import dataclasses

import pytest
import torch

from pipeline.errors import InputError
from pipeline.lora import attach_lora
from pipeline.nullspace.moments import InputMoments, WinnerCounts, Winners
from tests.merging.examples import adapter_experts, layer


def attention(unet):
    return [n for n, _ in unet.named_modules() if n.endswith(("to_q", "to_k", "to_v", "to_out.0"))]


def test_winner_counts_by_hand():
    # inputs (1, 0), (0, 1), (1, 1); rows of expert 1: |h0|, |2 h1|; of expert 2: |2 h0|, |h1|
    counts = WinnerCounts({"one": {"l": layer([[1, 0], [0, 2]])},
                           "two": {"l": layer([[2, 0], [0, 1]])}})  # fmt: skip
    counts.add("l", torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))  # any leading shape
    counts.add("l", torch.tensor([[1.0, 1.0]]))
    winners = counts.winners
    # row 0: expert 2 wins inputs 1 and 3; input 2 is 0 = 0, to the lower index. Row 1 mirrored.
    assert winners.counts["l"].tolist() == [[1, 3], [2, 0]]
    assert winners.sums["l"].tolist() == [[2.0, 4.0], [4.0, 2.0]]
    assert winners.rows("l").tolist() == [1, 0]
    assert winners.experts == ["one", "two"]


def test_ties_go_to_the_larger_activation_then_to_the_lower_index():
    winners = Winners("ab", {"l": torch.tensor([[2, 2], [2, 2]])},
                      {"l": torch.tensor([[1.0, 3.0], [1.5, 3.0]])})  # fmt: skip
    assert winners.rows("l").tolist() == [1, 0]


def test_the_most_wins_and_the_largest_activation_may_be_different_experts():
    winners = Winners("ab", {"l": torch.tensor([[3], [1]])}, {"l": torch.tensor([[3.0], [9.0]])})
    assert winners.rows("l", "count").tolist() == [0]
    assert winners.rows("l", "magnitude").tolist() == [1]


def test_rows_that_no_expert_writes_to_are_known():
    winners = Winners("ab", {"l": torch.ones(2, 2)}, {"l": torch.tensor([[0.0, 0.0], [0.0, 1.0]])})
    assert winners.written("l").tolist() == [False, True]


def test_many_inputs_are_counted_in_parts(monkeypatch):
    inputs = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    tables = []
    for rows in (7, 1000):
        monkeypatch.setattr("pipeline.nullspace.moments.INPUT_ROWS", rows)
        counts, sums = (
            WinnerCounts({"a": {"l": layer([[1] * 5])}, "b": {"l": layer([[2, 0, 0, 0, 0]])}}),
            InputMoments(),
        )
        counts.add("l", inputs)
        sums.add("l", inputs)
        tables.append((counts.winners, sums.means["l"]))
    assert torch.equal(tables[0][0].counts["l"], tables[1][0].counts["l"])
    assert torch.allclose(tables[0][0].sums["l"], tables[1][0].sums["l"])
    assert torch.allclose(tables[0][1], tables[1][1])
    assert torch.allclose(tables[0][1], (inputs.T @ inputs).double() / 100, atol=1e-5)


def test_calibration_sees_what_the_layers_see(calibration, tiny_unet):
    layers = attention(tiny_unet)
    seen = {name: 0 for name in layers}

    def count(name, inputs):
        seen[name] += inputs.shape[0] * inputs.shape[1]

    calibration.stream(layers, "rejected", count)
    for name, inputs in seen.items():
        # text tokens, or 4x4 latents, 2x2 in the middle block
        text = "attn2.to_v" in name or "attn2.to_k" in name
        tokens = 6 if text else 4 if "mid_block" in name else 16
        assert inputs == 2 * 2 * 3 * tokens  # categories, timesteps, prompts
    assert not any(m._forward_pre_hooks for m in tiny_unet.modules())


def test_the_same_draw_gives_the_same_inputs(calibration, tiny_unet):
    layers = attention(tiny_unet)
    whole, again = (calibration.moments(layers, "rejected") for _ in range(2))
    assert all(torch.equal(whole[name], again[name]) for name in layers)
    other = dataclasses.replace(calibration, base_seed=1).moments(layers, "rejected")
    assert not all(torch.equal(whole[name], other[name]) for name in layers)


def test_layers_with_one_input_share_one_moment(calibration, tiny_unet):
    layers = attention(tiny_unet)
    leaders = calibration.leaders(layers)
    assert leaders.keys() == set(layers)
    text = {leaders[n] for n in layers if "attn2.to_k" in n or "attn2.to_v" in n}
    assert len(text) == 1  # the prompt, in all blocks
    for name in layers:
        block, _, kind = name.rpartition(".attn")
        if kind in ("1.to_k", "1.to_v"):
            assert leaders[name] == f"{block}.attn1.to_q"
        if kind in ("1.to_q", "2.to_q", "1.to_out.0", "2.to_out.0"):
            assert leaders[name] == name
    shared = calibration.moments(layers, "rejected")
    for name in layers:  # each as if it had been watched alone
        alone = InputMoments()
        calibration.stream([name], "rejected", alone.add)
        assert torch.equal(shared[name], alone.means[name])


def test_sharing_is_found_behind_an_adapter_too(calibration, tiny_unet):
    plain = calibration.leaders(attention(tiny_unet))
    carrier = copy.deepcopy(tiny_unet)
    attach_lora(carrier, 2, ["to_q", "to_k", "to_v", "to_out.0"], seed=0)
    assert dataclasses.replace(calibration, unet=carrier).leaders(list(plain)) == plain


def test_moments_of_the_chosen_side_are_those_of_safe_and_benign_prompts(
    calibration, tiny_unet, tiny_latents
):
    calibration = dataclasses.replace(calibration, prompts=4)
    name = next(n for n in attention(tiny_unet) if n.endswith("attn2.to_v"))
    moment = calibration.moments([name], "chosen")[name]

    def moment_of(prompts):  # text layers see the prompts as they are
        tokens = tiny_latents.prompt_embeds[prompts].reshape(-1, 8).double()
        return tokens.T @ tokens / len(tokens)

    safe, empty, benign = moment_of(tiny_latents.chosen_prompt), moment_of([0]), moment_of([1])
    # half safe prompts, half benign ones; of these at least a quarter are the empty prompt
    rest = (moment - safe / 2) * 2
    share = ((rest - benign) / (empty - benign)).mean()
    assert 0.25 <= share < 1
    assert torch.allclose(rest, share * empty + (1 - share) * benign, atol=1e-5)


def test_too_few_pairs_and_another_model_are_named(calibration, tiny_unet):
    layers = attention(tiny_unet)
    with pytest.raises(InputError, match="calibration asks for 9; lower merge.calibration_prompts"):
        dataclasses.replace(calibration, prompts=9).moments(layers, "rejected")
    with pytest.raises(InputError, match="no layer nowhere; the experts are of another model"):
        calibration.stream(["nowhere"], "rejected", lambda name, inputs: None)


def test_experts_of_the_unet_are_counted(calibration, tiny_unet):
    experts = adapter_experts(tiny_unet)
    counts = WinnerCounts(experts)
    calibration.stream(list(experts["a"]), "rejected", counts.add)
    for table in counts.winners.counts.values():
        assert len(set(table.sum(0).tolist())) == 1  # every input has one winner per row
