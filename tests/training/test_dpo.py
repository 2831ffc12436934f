import math

import pytest
import torch

from pipeline.training.dpo import (
    LOSSES,
    Errors,
    diffusion_dpo_loss,
    ipo_loss,
    preference_metrics,
    scale_gradient,
    squared_error,
    winner_preserving_scale,
)


def errors(chosen, rejected):
    return Errors(torch.tensor(chosen), torch.tensor(rejected))


def test_loss_by_hand():
    # margin = -(beta/2) [(0.30 - 0.50) - (0.32 - 0.48)] = -5 x (-0.04) = 0.2
    policy, reference = errors([0.30], [0.50]), errors([0.32], [0.48])
    loss = diffusion_dpo_loss(policy, reference, beta=10)
    metrics = preference_metrics(policy, reference, beta=10)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.2))), rel=1e-5)
    assert metrics["rewards/chosen"].item() == pytest.approx(0.1, rel=1e-5)
    assert metrics["rewards/rejected"].item() == pytest.approx(-0.1, rel=1e-5)
    assert metrics["rewards/margins"].item() == pytest.approx(0.2, rel=1e-5)
    assert metrics["rewards/accuracies"].item() == 1.0
    assert metrics["error/chosen"].item() == pytest.approx(0.30)
    assert metrics["error/chosen_reference"].item() == pytest.approx(0.32)


def test_policy_equal_to_reference_gives_log_two():
    same = errors([0.3, 0.7], [0.4, 0.1])
    loss = diffusion_dpo_loss(same, same, beta=5000)
    assert torch.allclose(loss, torch.full((2,), math.log(2)))


def test_swapping_the_sides_flips_the_margin():
    policy, reference = errors([0.3], [0.5]), errors([0.35], [0.45])
    metrics = preference_metrics(policy, reference, 100)
    swapped = preference_metrics(
        Errors(policy.rejected, policy.chosen), Errors(reference.rejected, reference.chosen), 100
    )
    assert swapped["rewards/margins"].item() == pytest.approx(-metrics["rewards/margins"].item())


def test_doubling_beta_doubles_the_logit():
    arguments = errors([0.3], [0.5]), errors([0.35], [0.45])
    once = preference_metrics(*arguments, beta=100)
    twice = preference_metrics(*arguments, beta=200)
    assert twice["rewards/margins"].item() == pytest.approx(2 * once["rewards/margins"].item())


def test_a_batch_is_its_single_pairs():
    # invoke-training averages the errors over the batch before the log-sigmoid; this would differ
    policy, reference = errors([0.3, 0.9], [0.5, 0.1]), errors([0.35, 0.2], [0.45, 0.3])
    together = diffusion_dpo_loss(policy, reference, 20)
    for k in range(2):
        alone = diffusion_dpo_loss(
            Errors(policy.chosen[k : k + 1], policy.rejected[k : k + 1]),
            Errors(reference.chosen[k : k + 1], reference.rejected[k : k + 1]), 20,
        )  # fmt: skip
        assert together[k].item() == pytest.approx(alone.item())


def test_gradient_by_hand():
    # d loss / d policy.chosen = (beta/2) sigmoid(-margin)
    chosen = torch.tensor([0.3], requires_grad=True)
    arguments = Errors(chosen, torch.tensor([0.5])), errors([0.35], [0.45])
    diffusion_dpo_loss(*arguments, beta=10).sum().backward()
    margin = preference_metrics(*arguments, beta=10)["rewards/margins"].item()
    assert chosen.grad.item() == pytest.approx(5 / (1 + math.exp(margin)), rel=1e-5)


@pytest.mark.parametrize("name", ["diffusion_dpo", "ipo"])
def test_a_reversed_preference_is_refused(name):
    with pytest.raises(ValueError, match="beta must be positive"):
        LOSSES[name](errors([0.1], [0.1]), errors([0.1], [0.1]), -5000)


def test_ipo_by_hand():
    # the margin of test_loss_by_hand is 0.2: (0.2 - 0.5)^2
    loss = ipo_loss(errors([0.30], [0.50]), errors([0.32], [0.48]), beta=10)
    assert loss.item() == pytest.approx(0.09, rel=1e-5)


def test_sft_is_the_chosen_error_alone():
    policy, reference = errors([0.3, 0.7], [0.5, 0.1]), errors([0.1, 0.1], [0.2, 0.2])
    assert LOSSES["sft"](policy, reference, 100.0).tolist() == pytest.approx([0.3, 0.7])


def test_squared_error_is_a_mean_over_everything_but_the_batch():
    predicted = torch.stack([torch.ones(3, 2, 2), torch.full((3, 2, 2), 3.0)])
    assert squared_error(predicted, torch.zeros(2, 3, 2, 2)).tolist() == [1.0, 9.0]


def residuals(*vectors):
    return torch.tensor(vectors, dtype=torch.float32).view(len(vectors), -1, 1, 1)


@pytest.mark.parametrize(
    ("chosen", "rejected", "mu", "expected"),
    [
        ([1.0, 0.0], [4.0, 3.0], 0.5, 0.125),  # (1 - .5) x 1 / 4
        ([1.0, 0.0], [0.25, 9.0], 0.5, 1.0),  # .5 / .25 = 2, clamped
        ([1.0, 0.0], [-4.0, 3.0], 0.5, 1.0),  # opposed: nothing to protect
        ([1.0, 0.0], [4.0, 3.0], 1.0, 0.0),
    ],
)
def test_winner_preserving_scale_by_hand(chosen, rejected, mu, expected):
    scale = winner_preserving_scale(residuals(chosen), residuals(rejected), mu)
    assert scale.tolist() == pytest.approx([expected])


def test_winner_preserving_scale_is_per_pair():
    chosen, rejected = residuals([1.0, 0.0], [1.0, 0.0]), residuals([4.0, 3.0], [-4.0, 3.0])
    assert winner_preserving_scale(chosen, rejected, 0.5).tolist() == pytest.approx([0.125, 1.0])


def test_the_safeguard_keeps_the_chosen_error_from_rising():
    rng = torch.Generator().manual_seed(0)
    chosen = torch.randn(8, 4, 2, 2, generator=rng)
    rejected = chosen * 2 + torch.randn(8, 4, 2, 2, generator=rng)  # aligned: plain DPO would hurt
    scale = winner_preserving_scale(chosen, rejected, mu=0.0).view(-1, 1, 1, 1)
    step = -chosen + scale * rejected  # descent direction of the weighted errors in output space
    assert ((chosen * step).sum((1, 2, 3)) <= 1e-4).all()
    assert ((chosen * (-chosen + rejected)).sum((1, 2, 3)) > 0).any()


def test_scale_gradient_keeps_the_value():
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    y = scale_gradient(x, torch.tensor([0.5, 0.0]))
    y.sum().backward()
    assert y.tolist() == [2.0, 3.0]
    assert x.grad.tolist() == [0.5, 0.0]
