import pytest
import torch

from pipeline.lora import LoraLayer
from pipeline.merging.lowrank import (
    factorise,
    no_delta,
    product,
    scale_lora,
    stack_scaled,
    truncate,
)
from tests.merging.examples import layer, random_expert


def energy_left(whole, kept):
    return float((whole - kept).square().sum())


def best_energy_left(matrix, rank):
    """Eckart-Young: what the best matrix of a rank leaves."""
    return float(torch.linalg.svdvals(matrix.double())[rank:].square().sum())


def test_stacked_layers_add_up_row_by_row():
    one, other = layer([[1, 2], [3, 4]]), layer([[5, 6], [7, 8]])
    assert stack_scaled([one, other], [1.0, 0.5]).delta.tolist() == [[3.5, 5], [6.5, 8]]
    rows = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    assert stack_scaled([one, other], rows).delta.tolist() == [[1, 2], [7, 8]]
    assert torch.equal(stack_scaled([one, no_delta(2, 2)], [1.0, 1.0]).delta, one.delta)


def test_scaling():
    assert scale_lora({"x": layer([[1, 2]])}, 0.5)["x"].delta.tolist() == [[0.5, 1.0]]


def test_the_inner_product_is_that_of_the_dense_deltas():
    a, b = random_expert(0, rank=2)["x.to_q"], random_expert(1, rank=3)["x.to_q"]
    assert product(a, b) == pytest.approx(float((a.delta * b.delta).sum()), rel=1e-5)
    assert product(a, no_delta(6, 5)) == 0


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_factors_of_a_dense_delta_are_the_best_of_their_rank(shape, rank):
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = factorise(delta, rank)
    assert found.down.shape == (rank, shape[1]) and found.up.shape == (shape[0], rank)
    best = best_energy_left(delta, rank)
    assert energy_left(delta, found.delta) == pytest.approx(best, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("true_rank", [0, 2])
def test_a_delta_of_low_rank_comes_back_whole(true_rank):
    rng = torch.Generator().manual_seed(0)
    delta = torch.randn(7, true_rank, generator=rng) @ torch.randn(true_rank, 5, generator=rng)
    found = factorise(delta, 4)
    assert found.up.isfinite().all() and found.down.isfinite().all()
    assert torch.allclose(found.delta, delta, atol=1e-5)


def test_truncation_keeps_the_strongest_directions():
    wide = random_expert(0, rank=5, d_in=12, d_out=9)["x.to_q"]
    cut = truncate(wide, 2)
    assert len(cut.down) == 2
    assert energy_left(wide.delta, cut.delta) == pytest.approx(
        best_energy_left(wide.delta, 2), rel=1e-4
    )
    assert truncate(wide, 5) is wide
    # more ranks than inputs, as after stacking many experts
    tall = LoraLayer(torch.randn(20, 3), torch.randn(4, 20))
    assert torch.allclose(truncate(tall, 3).delta, tall.delta, atol=1e-4)
