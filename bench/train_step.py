"""Training speed and memory against the published loop: ``python -m bench.train_step``.

On the CPU and the testbed's model. Naive is what the papers' released code does: a second UNet as
the reference, and both VAE and text encoder run again at every step. Ours has cached latents and
embeddings and one UNet whose adapter is switched off for the reference; "fixed draws" also computes
reference errors once, which the time includes. All sides see the same pairs and batches; naive and
ours also the same random numbers, and their losses are compared first. Each measurement is a
process of its own, the sides in turn.
"""

import argparse
import ctypes
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks; naive is written for one device

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from transformers import CLIPTextModel, CLIPTokenizer

from bench.table import publish, row
from pipeline.diffusion import encode_prompts, load_alphas_cumprod, load_unet, load_vae
from pipeline.latents import LatentPairs
from pipeline.lora import attach_lora
from pipeline.preference import DpoSettings, NoiseSchedule, PreferenceStep
from pipeline.train import rows_of_step

MODEL = "assets/testbed/sd"
RANK, BETA, BATCH, PAIRS, PIXELS = 8, 500.0, 12, 48, 64
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
SIDES = ("naive", "ours", "fixed draws")


def images(seed: int) -> torch.Tensor:
    """Noise in place of pictures, (pairs, 3, h, w) in [-1, 1]; the speed is the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(PAIRS, 3, PIXELS, PIXELS, generator=generator) * 2 - 1


def prompts(side: str) -> list[str]:
    """One prompt per pair."""
    return [f"a red star with a {side} {k}" for k in range(PAIRS)]


class Naive:
    """The published step, written from METHOD §1.5."""

    def __init__(self) -> None:
        self.policy, self.reference = load_unet(MODEL, None), load_unet(MODEL, None)
        self.parameters = attach_lora(self.policy, RANK, TARGETS, seed=0)
        self.vae = AutoencoderKL.from_pretrained(MODEL, subfolder="vae").requires_grad_(False)
        self.encoder = CLIPTextModel.from_pretrained(MODEL, subfolder="text_encoder")
        self.encoder.requires_grad_(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(MODEL, subfolder="tokenizer")
        self.scheduler = DDPMScheduler.from_pretrained(MODEL, subfolder="scheduler")
        self.chosen, self.rejected = images(0), images(1)
        self.captions = prompts("mark") + prompts("cup")

    def __call__(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Losses (batch,); random numbers are drawn in the order that ours draws them."""
        pairs, n = rows % PAIRS, len(rows)
        size = self.policy.config.sample_size
        shape = (n, self.policy.config.in_channels, size, size)
        posterior = torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        timesteps = torch.randint(1000, (n,), generator=generator)
        with torch.no_grad():
            pixels = torch.cat([self.chosen[pairs], self.rejected[pairs]])
            encoded = self.vae.encode(pixels).latent_dist
            latents = encoded.mean + encoded.std * posterior.repeat(2, 1, 1, 1)
            latents = latents * self.vae.config.scaling_factor
            ids = self.tokenizer(
                [self.captions[r] for r in rows], padding="max_length", truncation=True,
                max_length=self.tokenizer.model_max_length, return_tensors="pt",
            ).input_ids  # fmt: skip
            text = self.encoder(ids).last_hidden_state.repeat(2, 1, 1)
            noise, timesteps = noise.repeat(2, 1, 1, 1), timesteps.repeat(2)
            noisy = self.scheduler.add_noise(latents, noise, timesteps)
            before = (self.reference(noisy, timesteps, text).sample - noise).square()
        after = (self.policy(noisy, timesteps, text).sample - noise).square()
        chosen, rejected = (after - before).mean((1, 2, 3)).chunk(2)
        return -torch.nn.functional.logsigmoid(-(BETA / 2) * (chosen - rejected))


class Ours:
    """The project's step."""

    def __init__(self, latents: LatentPairs, fixed_draws: int | None) -> None:
        self.unet = load_unet(MODEL, None)
        self.parameters = attach_lora(self.unet, RANK, TARGETS, seed=0)
        settings = DpoSettings(
            beta=BETA, mu=None, captions="both", prompt_dropout=0.0, fixed_draws=fixed_draws
        )
        schedule = NoiseSchedule(*load_alphas_cumprod(MODEL, None))
        self.step = PreferenceStep(self.unet, latents, schedule, settings, batch=BATCH)

    def __call__(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self.step(rows, generator)[0]


def cached_latents() -> LatentPairs:
    """What ``cache_latents``, a stage of its own, would have stored of the bench's pairs."""
    vae = load_vae(MODEL, None)
    moments = {}
    with torch.no_grad():
        for side, pixels in (("chosen", images(0)), ("rejected", images(1))):
            encoded = vae.encode(pixels).latent_dist
            scale = vae.config.scaling_factor
            moments |= {f"{side}_mean": encoded.mean * scale, f"{side}_std": encoded.std * scale}
    texts = ["", *prompts("mark"), *prompts("cup")]
    embeds, pooled = encode_prompts(MODEL, None, texts, 32)
    return LatentPairs(
        pair_ids=[str(k) for k in range(PAIRS)], base_revision="bench",
        prompt_embeds=embeds, pooled_embeds=pooled, pixels=PIXELS,
        rejected_prompt=torch.arange(1, PAIRS + 1),
        chosen_prompt=torch.arange(PAIRS + 1, 2 * PAIRS + 1),
        benign_prompt=torch.tensor([0]), margin=torch.ones(PAIRS), judge_spec="bench", **moments,
    )  # fmt: skip


def build(side: str, latents: LatentPairs):
    """One of SIDES."""
    if side == "naive":
        return Naive()
    return Ours(latents, 4 if side == "fixed draws" else None)


def losses_agree() -> float:
    """The largest difference of naive's and our losses on one batch, away from the reference."""
    rows, values, latents = rows_of_step(2 * PAIRS, BATCH, 0, 0), [], cached_latents()
    for side in SIDES[:2]:
        trainer = build(side, latents)
        for parameter in trainer.parameters.values():
            parameter.data += 0.01  # away from the reference, where every loss is ln 2
        values.append(trainer(rows, torch.Generator().manual_seed(0)).detach())
    return (values[0] - values[1]).abs().max().item()


def measure(side: str, steps: int) -> dict[str, float]:
    """Pairs per second and peak memory above that of the imported libraries, in this process."""
    latents = cached_latents()  # on every side, so that all have imported the same
    before = reset_peak_memory()
    trainer = build(side, latents)
    optimizer = torch.optim.AdamW(trainer.parameters.values(), lr=1e-3)
    start = time.monotonic()
    for step in range(steps):
        rows = rows_of_step(2 * PAIRS, BATCH, step, 0)
        trainer(rows, torch.Generator().manual_seed(step)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.monotonic() - start
    return {"pairs/s": steps * BATCH / seconds, "MiB": peak_memory() - before}


def reset_peak_memory() -> float:
    """Forget the process's peak resident memory so far; returns today's, MiB. Linux only."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> float:
    """Peak resident memory since the last reset, MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.steps)))
        return
    difference = losses_agree()
    if difference > 1e-4:
        raise SystemExit(f"naive's and our losses differ by {difference}")
    found = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            done = subprocess.run(
                [sys.executable, "-m", "bench.train_step", "--side", side,
                 "--steps", str(args.steps)], check=True, capture_output=True, text=True,
            )  # fmt: skip
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {side: {unit: statistics.median(f[unit] for f in runs) for unit in runs[0]}
               for side, runs in found.items()}  # fmt: skip
    publish("train_step", [
        row(f"{side}, {name}", medians[side][unit], medians["naive"][unit], unit, args.rounds,
            higher_is_better=unit == "pairs/s")
        for side in SIDES[1:] for unit, name in (("pairs/s", "speed"), ("MiB", "peak memory"))
    ], steps=args.steps, batch=BATCH, largest_loss_difference=difference)  # fmt: skip


if __name__ == "__main__":
    main()
