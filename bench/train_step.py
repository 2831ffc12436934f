"""Training speed and memory against the published loop: ``python -m bench.train_step``.

On the testbed's model and the CPU, unless told otherwise; on a GPU for example

    python -m bench.models sd15 /tmp/sd15
    python -m bench.train_step --model /tmp/sd15 --pixels 512 --batch 4 --bf16

Naive is what the papers' released code does: a second UNet as the reference, and both VAE and text
encoder run again at every step. Ours has cached latents and embeddings and one UNet whose adapter
is switched off for the reference; "fixed draws" also computes reference errors once, which the time
includes; "in halves" has half of a batch in memory at a time (``optim.micro_batch``); "compiled"
runs UNets through torch.compile, whose time is not included but told beside it; "policy alone" is
naive without encoders and reference, faster than which no loop with that policy can be. The others
see the same pairs and batches; all but those with fixed draws also the same random numbers as
naive, and their losses are compared first. Each measurement is a process of its own, the sides in
turn.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.memory import now, peak_memory, reset_peak_memory
from bench.published import BETA, PAIRS, RANK, TARGETS, Case, PolicyAlone, Published, prompts
from bench.table import publish, row
from pipeline.diffusion import encode_prompts, load_noise_schedule, load_unet, load_vae
from pipeline.latents import LatentPairs
from pipeline.lora import attach_lora, round_frozen
from pipeline.training.loop import rows_of_step
from pipeline.training.preference import DpoSettings, PreferenceStep

LARGEST_DIFFERENCE = 1e-3  # of losses around ln 2; our embeddings are cached in half precision
SIDES = ("naive", "ours", "fixed draws", "compiled", "fixed draws, compiled", "ours, in halves",
         "fixed draws, in halves", "policy alone")  # fmt: skip
PEAK_BF16 = 989e12  # multiplications and additions a second of an H100 or H200, dense


class Ours:
    """The project's step."""

    def __init__(
        self, case: Case, latents: LatentPairs, *, fixed_draws: int | None, compiled: bool,
        at_once: int,
    ) -> None:  # fmt: skip
        self.unet = load_unet(case.source)
        self.parameters = attach_lora(self.unet, RANK, TARGETS, seed=0)
        if case.bf16:
            round_frozen(self.unet)
        settings = DpoSettings(
            beta=BETA, mu=None, captions="both", prompt_dropout=0.0, fixed_draws=fixed_draws
        )
        self.step = PreferenceStep(
            self.unet, latents, load_noise_schedule(case.source), settings, at_once=at_once,
            precision="bf16" if case.bf16 else "fp32", compiled=compiled,
        )  # fmt: skip

    def __call__(self, rows: torch.Tensor, generator: torch.Generator) -> Iterator[torch.Tensor]:
        return (losses for losses, _ in self.step(rows, generator))


def cached_latents(case: Case) -> LatentPairs:
    """What ``cache_latents``, a stage of its own, would have stored of the bench's pairs."""
    vae, moments = load_vae(case.source).to(case.device), {}
    scale = vae.config.scaling_factor
    with torch.no_grad():
        for side, pixels in (("chosen", case.images(0)), ("rejected", case.images(1))):
            encoded = [vae.encode(part.to(case.device)).latent_dist for part in pixels.split(4)]
            for name in ("mean", "std"):
                found = torch.cat([getattr(e, name).cpu() for e in encoded]) * scale
                moments[f"{side}_{name}"] = found[:, None]
    embeds, pooled = encode_prompts(case.source, ["", *prompts("mark"), *prompts("cup")], 32)
    return LatentPairs(
        pair_ids=[str(k) for k in range(PAIRS)], base_revision="bench",
        prompt_embeds=embeds.half(), pooled_embeds=pooled.half(), pixels=case.pixels,
        view_pixels=case.pixels, corner=torch.zeros(PAIRS, 1, 2, dtype=torch.int64),
        rejected_prompt=torch.arange(1, PAIRS + 1),
        chosen_prompt=torch.arange(PAIRS + 1, 2 * PAIRS + 1),
        benign_prompt=torch.tensor([0]), margin=torch.ones(PAIRS), judge_spec="bench", **moments,
    )  # fmt: skip


def build(case: Case, side: str, latents: LatentPairs):
    """One of SIDES."""
    if side == "naive":
        return Published(case)
    if side == "policy alone":
        return PolicyAlone(case)
    return Ours(
        case, latents, fixed_draws=4 if "fixed draws" in side else None,
        compiled="compiled" in side, at_once=-(-case.batch // (2 if "halves" in side else 1)),
    )  # fmt: skip


def losses_agree(case: Case, sides: Sequence[str]) -> float:
    """The largest difference of two sides' losses on one batch, away from the reference."""
    rows, values = rows_of_step(2 * PAIRS, case.batch, 0, 0), []
    latents = cached_latents(case)
    for side in sides:
        trainer = build(case, side, latents)
        for parameter in trainer.parameters.values():
            parameter.data += 0.01  # away from the reference, where every loss is ln 2
        values.append(torch.cat([*trainer(rows, torch.Generator().manual_seed(0))]).detach())
    return (values[0] - values[1]).abs().max().item()


def measure(case: Case, side: str, steps: int) -> dict[str, float]:
    """Speed, and peak memory above that of what is already there, in this process."""
    latents = cached_latents(case)  # on every side, so that all have imported the same
    before = reset_peak_memory()
    trainer = build(case, side, latents)
    optimizer = torch.optim.AdamW(trainer.parameters.values(), lr=1e-3, fused=side != "naive")

    def take(step: int) -> None:
        rows = rows_of_step(2 * PAIRS, case.batch, step, 0)
        for losses in trainer(rows, torch.Generator().manual_seed(step)):
            (losses.sum() / case.batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    start = now()
    if "compiled" in side:
        trainer.step.rehearse(case.batch)
    compiling = now() - start
    start = now()
    for step in range(steps):
        take(step)
    speed = steps / (now() - start)
    found = {"pairs/s": speed * case.batch, "MiB": peak_memory() - before, "compile s": compiling}
    if case.device == "cuda":
        with FlopCounterMode(display=False) as counter:
            take(steps)
        found["% of peak"] = 100 * counter.get_total_flops() * speed / PEAK_BF16
    return found


def table(
    found: dict[str, list[dict[str, float]]], rounds: int
) -> list[dict[str, object]]:  # fmt: skip
    """Rows of medians, each side against naive."""
    medians = {side: {unit: statistics.median(f[unit] for f in runs) for unit in runs[0]}
               for side, runs in found.items()}  # fmt: skip
    naive, rows = medians["naive"], []
    for side in SIDES[1:]:
        ours = medians[side]
        rows.append(row(f"{side}, speed", ours["pairs/s"], naive["pairs/s"], "pairs/s", rounds,
                        higher_is_better=True))  # fmt: skip
        if "compiled" in side:  # the compiler's own memory hides the step's
            rows.append(row(f"{side}, first time", ours["compile s"], None, "s", rounds))
        elif side != "policy alone":  # that has all models loaded, as naive
            rows.append(row(f"{side}, peak memory", ours["MiB"], naive["MiB"], "MiB", rounds))
        if "% of peak" in ours:
            rows.append(row(f"{side}, of bf16 peak", ours["% of peak"], naive["% of peak"], "%",
                            rounds, higher_is_better=True))  # fmt: skip
    return rows


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="assets/testbed/sd", help="a diffusers folder")
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    case = Case(args.model, args.pixels, args.batch, args.bf16)
    if args.side:
        print(json.dumps(measure(case, args.side, args.steps)))
        return
    differences = {
        s: losses_agree(case, ["naive", s])
        for s in SIDES[1:]
        if "fixed" not in s and s != "policy alone"
    }
    if max(differences.values()) > LARGEST_DIFFERENCE * (10 if case.bf16 else 1):
        raise SystemExit(f"losses differ from naive's: {differences}")
    found = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "bench.train_step", *sys.argv[1:], "--side", side]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    name = "train_step" if case.device == "cpu" else f"train_step_{Path(args.model).name}_gpu"
    publish(name, table(found, args.rounds), steps=args.steps, batch=args.batch,
            device=case.device, largest_loss_differences=differences)  # fmt: skip


if __name__ == "__main__":
    main()
