"""The papers' released training step, written anew from METHOD's list of what it does.

A second UNet as the reference; VAE and text encoders run again at every step; of SDXL, whose models
fill a card, the encoders wait in the CPU's memory meanwhile. ``bench.train_step`` measures it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor

from pipeline.diffusion import UNCHECKED, load_unet, open_pipeline
from pipeline.lora import attach_lora, round_frozen
from pipeline.sources import ModelSource

RANK, BETA, PAIRS = 8, 500.0, 48
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass(frozen=True)
class Case:
    """What is measured: a model folder, the size of its images, and how it is trained."""

    model: str
    pixels: int
    batch: int
    bf16: bool

    @property
    def source(self) -> ModelSource:
        """Where the models come from."""
        return ModelSource(self.model)

    @cached_property
    def device(self) -> str:
        """A GPU if there is one."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def images(self, seed: int) -> Tensor:
        """Noise in place of pictures, (pairs, 3, h, w) in [-1, 1]; the speed is the same."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(PAIRS, 3, self.pixels, self.pixels, generator=generator) * 2 - 1

    def autocast(self) -> torch.autocast:
        """As both sides compute."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)


def prompts(side: str) -> list[str]:
    """One prompt per pair."""
    return [f"a red star with a {side} {k}" for k in range(PAIRS)]


class Published:
    """The step: (rows, generator) to losses; frozen models in half precision if any is."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.policy, self.reference = load_unet(case.source), load_unet(case.source)
        self.parameters = attach_lora(self.policy, RANK, TARGETS, seed=0)
        self.vae = AutoencoderKL.from_pretrained(case.model, subfolder="vae").requires_grad_(False)
        self.text = open_pipeline(case.source, torch.float32, unet=None, vae=None, **UNCHECKED)
        encoders = [getattr(self.text, name, None) for name in ("text_encoder", "text_encoder_2")]
        self.encoders = [self.vae, *(e.requires_grad_(False) for e in encoders if e is not None)]
        self.offloaded = len(self.encoders) > 2  # SDXL
        if case.bf16:
            for frozen in (self.policy, self.reference, *self.encoders):
                round_frozen(frozen)
        if not self.offloaded:
            self._encoders_to(case.device)
        self.scheduler = DDPMScheduler.from_pretrained(case.model, subfolder="scheduler")
        self.chosen, self.rejected = case.images(0), case.images(1)
        self.captions = prompts("mark") + prompts("cup")

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        """Losses (batch,); random numbers are drawn in the order that ours draws them."""
        inputs, noise, before = self.given(rows, generator)
        with self.case.autocast():
            after = (self.policy(**inputs).sample.float() - noise).square()
        chosen, rejected = (after - before).mean((1, 2, 3)).chunk(2)
        yield -torch.nn.functional.logsigmoid(-(BETA / 2) * (chosen - rejected))

    @torch.no_grad()
    def given(self, rows: Tensor, generator: torch.Generator) -> tuple[dict, Tensor, Tensor]:
        """What the policy is given and is to predict, and the reference's squared errors."""
        device, pairs, n = self.case.device, rows % PAIRS, len(rows)
        size = self.case.pixels // 2 ** (len(self.vae.config.block_out_channels) - 1)
        shape = (n, self.policy.config.in_channels, size, size)
        posterior = torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator).repeat(2, 1, 1, 1).to(device)
        timesteps = torch.randint(1000, (n,), generator=generator).repeat(2).to(device)
        if self.offloaded:
            self._encoders_to(device)
        with self.case.autocast():
            pixels = torch.cat([self.chosen[pairs], self.rejected[pairs]]).to(device)
            encoded = self.vae.encode(pixels).latent_dist
            drawn = posterior.repeat(2, 1, 1, 1).to(device)
            latents = (encoded.mean + encoded.std * drawn) * self.vae.config.scaling_factor
            told = self._encode_text([self.captions[r] for r in rows])
        if self.offloaded:
            self._encoders_to("cpu")
        noisy = self.scheduler.add_noise(latents.float(), noise, timesteps)
        inputs = {"sample": noisy, "timestep": timesteps} | told
        with self.case.autocast():
            before = (self.reference(**inputs).sample.float() - noise).square()
        return inputs, noise, before

    def _encode_text(self, captions: list[str]) -> dict[str, object]:
        """What the UNet is told besides, for both sides."""
        device = self.case.device
        embeds, _, *pooled = self.text.encode_prompt(
            prompt=captions, device=device, num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )  # fmt: skip
        told: dict[str, object] = {"encoder_hidden_states": embeds.repeat(2, 1, 1)}
        if pooled:
            side = self.case.pixels
            sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32)
            told["added_cond_kwargs"] = {
                "text_embeds": pooled[0].repeat(2, 1),
                "time_ids": sizes.repeat(2 * len(captions), 1).to(device),
            }
        return told

    def _encoders_to(self, device: str) -> None:
        for encoder in self.encoders:
            encoder.to(device)


class PolicyAlone(Published):
    """The step without encoders and reference: as fast as any loop that has the same policy.

    Every step is that of the first batch.
    """

    first: tuple[dict, Tensor, Tensor] | None = None

    def given(self, rows: Tensor, generator: torch.Generator) -> tuple[dict, Tensor, Tensor]:
        """As the published step's, once."""
        self.first = self.first or super().given(rows, generator)
        return self.first
