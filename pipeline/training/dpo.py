"""Preference losses for diffusion and the winner-preserving safeguard, as pure functions.

Convention for beta, here and everywhere in this project: that of Wallace et al. (arXiv 2311.12908)
and AlignGuard, where the logit is -(beta / 2) times the difference of squared errors. diffusers'
training script writes beta for what is beta / 2 here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Errors:
    """Squared noise errors of a batch of pairs, each (batch,): the mean over (c, h, w)."""

    chosen: Tensor
    rejected: Tensor


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over (c, h, w) of the squared difference: (batch, c, h, w) to (batch,)."""
    return (predicted - target).square().mean(dim=(1, 2, 3))


def implicit_rewards(policy: Errors, reference: Errors, beta: float) -> Errors:
    """(beta / 2) (reference error - policy error) of each side, (batch,).

    Raises:
        ValueError: beta is not positive, which would reverse the preference.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}: it would reverse the preference")
    return Errors(
        (beta / 2) * (reference.chosen - policy.chosen),
        (beta / 2) * (reference.rejected - policy.rejected),
    )


def diffusion_dpo_loss(policy: Errors, reference: Errors, beta: float) -> Tensor:
    """Diffusion-DPO, METHOD §1.2 and Wallace et al. eq. 14, one value per pair.

    loss = -log sigmoid(-(beta / 2) [(policy.chosen - policy.rejected)
                                     - (reference.chosen - reference.rejected)])

    Args:
        policy: errors of the trained model, shape (batch,).
        reference: errors of the base model on the same latents, noise and timesteps.
        beta: positive; see the module docstring for the convention.
    """
    rewards = implicit_rewards(policy, reference, beta)
    return -logsigmoid(rewards.chosen - rewards.rejected)


def ipo_loss(policy: Errors, reference: Errors, beta: float) -> Tensor:
    """Identity preference optimisation (arXiv 2310.12036 eq. 17), for diffusion, one per pair.

    loss = (margin - 1 / 2)^2 with Diffusion-DPO's margin: beta^2 times the published form, so that
    its size does not depend on beta. Pairs are not pushed apart beyond a margin of 1 / 2.
    """
    rewards = implicit_rewards(policy, reference, beta)
    return (rewards.chosen - rewards.rejected - 0.5).square()


def sft_loss(policy: Errors, reference: Errors, beta: float) -> Tensor:
    """Supervised fine-tuning on the chosen side alone: its noise error, one value per pair."""
    return policy.chosen


# name -> loss of (policy, reference, beta), (batch,)
LOSSES: dict[str, Callable[[Errors, Errors, float], Tensor]] = {
    "diffusion_dpo": diffusion_dpo_loss,
    "ipo": ipo_loss,
    "sft": sft_loss,
}


# the margin beyond which a loss no longer pushes the sides apart
TARGET_MARGINS = {"diffusion_dpo": math.inf, "ipo": 0.5, "sft": math.inf}


def preference_metrics(policy: Errors, reference: Errors, beta: float) -> dict[str, Tensor]:
    """What to watch of a batch under the field's names, detached values (batch,)."""
    rewards = implicit_rewards(policy, reference, beta)
    margins = rewards.chosen - rewards.rejected
    metrics = {
        "rewards/chosen": rewards.chosen, "rewards/rejected": rewards.rejected,
        "rewards/margins": margins, "rewards/accuracies": (margins > 0).float(),
        "error/chosen": policy.chosen, "error/chosen_reference": reference.chosen,
        "error/rejected": policy.rejected, "error/rejected_reference": reference.rejected,
    }  # fmt: skip
    return {name: value.detach() for name, value in metrics.items()}


def winner_preserving_scale(
    chosen_residual: Tensor, rejected_residual: Tensor, mu: float
) -> Tensor:
    """Diffusion-SDPO's lambda per pair (arXiv 2511.03317; METHOD §1.2), shape (batch,) in [0, 1].

    lambda = clamp((1 - mu) <g_w, g_w> / <g_w, g_l>, 0, 1) where <g_w, g_l> > 0, else 1

    with g the output-space gradients of the two errors, proportional to prediction - target. To
    first order a step that pushes the sides apart with the rejected gradient scaled by lambda does
    not raise the chosen error. A loss that pushes them together again must not be scaled.

    Args:
        chosen_residual: prediction - target on the chosen side, (batch, c, h, w).
        rejected_residual: the same on the rejected side.
        mu: margin in [0, 1]; larger protects the chosen side more.
    """
    chosen, rejected = chosen_residual.detach().flatten(1), rejected_residual.detach().flatten(1)
    square, cross = (chosen * chosen).sum(1), (chosen * rejected).sum(1)
    scale = ((1 - mu) * square / cross.clamp(min=1e-20)).clamp(0, 1)
    return scale.where(cross > 0, square.new_ones(()))


def scale_gradient(value: Tensor, scale: Tensor) -> Tensor:
    """``value`` unchanged, its gradient times ``scale``."""
    return scale * value + (1 - scale) * value.detach()
