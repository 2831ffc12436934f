import pytest
import torch

from pipeline.lora import LoraLayer
from pipeline.nullspace.moments import Moments
from pipeline.nullspace.projection import (
    null_projection,
    null_projections,
    project_experts,
    project_inputs,
)


def test_the_projection_by_hand():
    # C = diag(3, 1, 0), trace / d = 4/3, damping 0.75 gives s = 1: s / (c + s) = 1/4, 1/2, 1
    projection = null_projection(torch.diag(torch.tensor([3.0, 1.0, 0.0])), 0.75)
    assert torch.allclose(projection, torch.diag(torch.tensor([0.25, 0.5, 1.0])))


def test_it_minimises_the_ridge_objective():
    rng = torch.Generator().manual_seed(0)
    inputs, delta = torch.randn(50, 4, generator=rng).double(), torch.randn(3, 4, generator=rng)
    moment = inputs.T @ inputs / 50
    s = 0.2 * moment.trace() / 4
    best = delta.double() @ null_projection(moment, 0.2).double()

    def objective(x):
        return (x - delta).square().sum() + (inputs @ x.T).square().sum() / 50 / s

    for _ in range(20):
        other = best + 0.05 * torch.randn(3, 4, generator=rng).double()
        assert objective(other) > objective(best)


def test_projecting_a_lora_projects_its_delta():
    rng = torch.Generator().manual_seed(0)
    layer = LoraLayer(torch.randn(2, 4, generator=rng), torch.randn(3, 2, generator=rng))
    inputs = torch.randn(9, 4, generator=rng)
    projection = null_projection((inputs.T @ inputs / 9).double(), 0.1)
    projected = project_inputs({"l": layer}, {"l": projection})["l"]
    assert torch.allclose(projected.delta, layer.delta @ projection, atol=1e-5)
    assert (inputs @ projected.delta.T).norm() < 0.5 * (inputs @ layer.delta.T).norm()


def test_damping_must_be_positive():
    with pytest.raises(ValueError, match="damping must be positive, got 0"):
        null_projection(torch.eye(2), 0)


def test_projected_experts_are_those_seen_through_the_projections():
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 9, 4, generator=rng).double()
    moments = Moments({"a": inputs[0].T @ inputs[0], "c": inputs[1].T @ inputs[1]},
                      {"a": "a", "b": "a", "c": "c"})  # fmt: skip
    experts = {
        name: {layer: LoraLayer(torch.randn(rank, 4, generator=rng),
                                torch.randn(3, rank, generator=rng)) for layer in "abc"}
        for name, rank in (("one", 1), ("two", 2))
    }  # fmt: skip
    projections = null_projections(moments, 0.1)
    projected = project_experts(experts, moments, 0.1)
    for name, lora in experts.items():
        through = project_inputs(lora, projections)
        assert list(projected[name]) == list("abc")
        for layer in "abc":
            assert torch.allclose(projected[name][layer].delta, through[layer].delta, atol=1e-5)


def test_layers_with_one_input_share_one_projection():
    moments = Moments({"a": torch.eye(2).double()}, {"a": "a", "b": "a"})
    projections = null_projections(moments, 1.0)
    assert projections.keys() == {"a", "b"} and projections["a"] is projections["b"]
    assert torch.allclose(projections["a"], torch.eye(2) / 2)
