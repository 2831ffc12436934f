"""Safe Latent Diffusion (Schramowski et al., CVPR 2023, arXiv 2211.05105) on today's pipelines.

Drawing is steered away from a concept, without training. With eps_u, eps_p and eps_s what the UNet
predicts for the unconditional part, the prompt and the concept, elementwise (Eqs. 3 to 8 there),

    mu     = 0 where eps_p - eps_s >= threshold, else min(1, scale |eps_p - eps_s|)
    gamma  = mu (eps_s - eps_u) + momentum nu          nu is 0 at first
    nu     = beta nu + (1 - beta) gamma                for the next step, in the warm-up too
    result = eps_u + guidance (eps_p - eps_u - gamma)  without gamma in the warm-up

Where sources differ, the authors' code is followed (``StableDiffusionPipelineSafe``, deprecated in
diffusers and of Stable Diffusion alone), as in mu's bound of 1. Unlike there, a scale up to 1 does
not turn steering off, and the warm-up is a share of the steps. Here the UNet hands the pipeline
eps_p - gamma for the prompt, and the pipeline's own guidance makes the result of it: a negative
prompt acts through eps_u. The UNet sees three rows per image instead of two.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

# the paper's configurations, warm-ups out of 50 steps; weak's scale is 200 in the authors' model
# card (AIML-TUDA/stable-diffusion-safe), beside what it measured, and 20 in diffusers
PRESETS: dict[str, dict[str, float]] = {
    "weak": {"scale": 200, "threshold": 0.0, "warmup": 15 / 50, "momentum": 0.0, "beta": 0.0},
    "medium": {"scale": 1000, "threshold": 0.01, "warmup": 10 / 50, "momentum": 0.3, "beta": 0.4},
    "strong": {"scale": 2000, "threshold": 0.025, "warmup": 7 / 50, "momentum": 0.5, "beta": 0.7},
    "max": {"scale": 5000, "threshold": 1.0, "warmup": 0.0, "momentum": 0.5, "beta": 0.7},
}
_LARGEST = {"scale": math.inf, "threshold": math.inf, "warmup": 1, "momentum": 1, "beta": 1}


@dataclass(frozen=True)
class SafeLatents:
    """What to steer away from, and how hard; InputError for values out of range."""

    concept: str  # text of what to steer away from
    scale: float  # s_S >= 0: how soon a difference from the concept counts in full
    threshold: float  # lambda >= 0: the larger, the more is steered
    warmup: float  # delta, 0 to 1: share of the steps, to whole ones, before steering starts
    momentum: float  # s_m, 0 to 1: how much of the momentum is added to a step's steering
    beta: float  # beta_m, 0 to 1: how much of the momentum is kept from step to step

    def __post_init__(self) -> None:
        if not self.concept.strip():
            raise InputError("safe latents have no concept; say what to steer away from")
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= largest):
                limits = "0 or more" if largest == math.inf else f"between 0 and {largest}"
                raise InputError(f"safe latents' {name} is {value}; it must be {limits}")

    def describe(self) -> dict[str, object]:
        """The settings as plain values, for ids and records."""
        return asdict(self)


@contextmanager
def safe_latents(pipe: "DiffusionPipeline", settings: SafeLatents, steps: int) -> Iterator[None]:
    """Within, one call of the pipeline with ``steps`` steps draws away from the concept.

    For StableDiffusionPipeline and StableDiffusionXLPipeline, with a LoRA or not; no IP-Adapter.
    The UNet's own forward is back afterwards, whatever happened within.

    Raises:
        InputError: another one is active on the pipeline. From the pipeline's call: its guidance is
            off, it was called before, or it does not call the UNet ``steps`` times (second-order
            schedulers, which call it twice a step, are not supported).
    """
    import torch

    unet = pipe.unet
    before = vars(unet).get("forward")  # an offloading hook's, say
    if isinstance(getattr(before, "__self__", None), _SteeredUnet):
        raise InputError("safe latents cannot be nested; join the concepts in one text")
    with torch.no_grad():
        given = pipe.encode_prompt(
            prompt=settings.concept, device=pipe.device, num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )  # fmt: skip
    # StableDiffusionPipeline gives (embeds, negative), SDXL's (embeds, negative, pooled, negative)
    concept = {"encoder_hidden_states": given[0], "text_embeds": given[2] if given[2:] else None}
    unet.forward = _SteeredUnet(pipe, unet.forward, settings, steps, concept).forward
    try:
        yield
    finally:
        del unet.forward
        if before is not None:
            unet.forward = before


def safety_guidance(
    uncond: "Tensor", text: "Tensor", safety: "Tensor", nu: "Tensor | float", settings: SafeLatents
) -> tuple["Tensor", "Tensor"]:
    """A step's gamma and the next step's nu, from predictions of one shape and this step's nu."""
    ahead = text - safety
    mu = (ahead.abs() * settings.scale).clamp(max=1).masked_fill(ahead >= settings.threshold, 0)
    gamma = mu * (safety - uncond) + settings.momentum * nu
    return gamma, settings.beta * nu + (1 - settings.beta) * gamma


@dataclass
class _SteeredUnet:
    """Stands in for the UNet's forward during one pipeline call, and keeps its state."""

    pipe: "DiffusionPipeline"
    plain: Callable[..., tuple["Tensor"]]
    settings: SafeLatents
    steps: int
    concept: dict[str, "Tensor | None"]  # one row each, under the UNet's names for them
    step: int = 0
    nu: "Tensor | float" = 0.0

    def forward(
        self, sample: "Tensor", timestep: "Tensor", encoder_hidden_states: "Tensor",
        added_cond_kwargs: dict[str, "Tensor"] | None = None, **others: object,
    ) -> tuple["Tensor"]:  # fmt: skip
        """Predictions (2 x images, ...) as the pipelines ask for them: in a tuple, uncond first."""
        import torch

        self._check()
        added = {k: self._add(k, rows) for k, rows in (added_cond_kwargs or {}).items()}
        prediction = self.plain(
            self._add("sample", sample), timestep,
            encoder_hidden_states=self._add("encoder_hidden_states", encoder_hidden_states),
            added_cond_kwargs=added or None, **others,
        )[0]  # fmt: skip
        uncond, text, safety = prediction.float().chunk(3)  # half precision would round momentum
        gamma, self.nu = safety_guidance(uncond, text, safety, self.nu, self.settings)
        if self.step >= round(self.settings.warmup * self.steps):
            text = text - gamma
        self.step += 1
        return (torch.cat([uncond, text]).to(prediction.dtype),)

    def _add(self, name: str, rows: "Tensor") -> "Tensor":
        """The rows and a third part: the concept's, or the prompts' again where it has none."""
        import torch

        prompts, own = rows[len(rows) // 2 :], self.concept.get(name)
        return torch.cat([rows, prompts if own is None else own.to(prompts).expand_as(prompts)])

    def _check(self) -> None:
        if not self.pipe.do_classifier_free_guidance:
            raise InputError("safe latents act through guidance; set a guidance scale above 1")
        if self.pipe.num_timesteps != self.steps:
            raise InputError(
                f"safe latents are set for {self.steps} steps, but the UNet is called "
                f"{self.pipe.num_timesteps} times; give the steps drawn with, and use dpm++ or ddim"
            )
        if self.step == self.steps:
            raise InputError("safe latents last for one pipeline call; enter them anew for each")
