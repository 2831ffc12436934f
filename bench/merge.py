"""Merging experts of a Stable Diffusion 1.5: ``python -m bench.merge``.

Experts are random LoRAs of rank 8 on every attention layer of the published UNet's shape, the
calibration random moments and winners of the same shapes (how long it takes to find real ones
depends on the model's forward pass and is not part of this). Ours merges layer by layer and keeps
low-rank deltas as factors; naive forms every expert's dense delta of all layers first and takes
each merged layer's whole SVD, as merging in weight space is usually written.

Every case is a process of its own, which gives freed memory back at once. Memory is its peak above
what it had before, experts included, as a multiple of the experts' own size: with them and a merged
LoRA of rank n r in memory it is 2 at least.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import torch

from bench.memory import peak_memory, reset_peak_memory
from bench.models import sd15_unet
from bench.table import publish, row
from pipeline.lora import Lora, LoraLayer
from pipeline.merging.calibration import MergeCalibration
from pipeline.merging.methods import MERGE_METHODS, MergeRecipe, merge_experts
from pipeline.nullspace.moments import Moments, Winners

RANK, EXPERTS = 8, 7
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
NAIVE = "ties"  # the method that the naive side is written for
MANY = (2, 7, 20, 50)
RECIPES = {"svd": {"rank": RANK}, "ties": {"density": 0.2}, "dare": {"density": 0.5}}


def layer_shapes() -> dict[str, tuple[int, int]]:
    """(d_out, d_in) of every attention layer, without making the weights."""
    with torch.device("meta"):
        unet = sd15_unet()
    return {n: tuple(m.weight.shape) for n, m in unet.named_modules() if n.endswith(ATTENTION)}


def random_experts(shapes: Mapping[str, tuple[int, int]], count: int) -> dict[str, Lora]:
    """LoRAs of rank ``RANK``."""
    torch.manual_seed(0)
    return {
        f"expert{k:02d}": {name: LoraLayer(torch.randn(RANK, d_in), torch.randn(d_out, RANK))
                           for name, (d_out, d_in) in shapes.items()}
        for k in range(count)
    }  # fmt: skip


def random_calibration(
    shapes: Mapping[str, tuple[int, int]], experts: Mapping[str, Lora]
) -> MergeCalibration:
    """One moment per width, which all layers of it share, and random winners."""
    leaders = {name: str(d_in) for name, (_, d_in) in shapes.items()}
    matrices = {}
    for d_in in {d_in for _, d_in in shapes.values()}:
        h = torch.randn(2 * d_in, d_in)
        matrices[str(d_in)] = h.T @ h / len(h)
    moments = Moments(matrices, leaders)
    counts = {name: torch.randint(1000, (len(experts), d_out))
              for name, (d_out, _) in shapes.items()}  # fmt: skip
    sums = {name: torch.rand(len(experts), d_out) for name, (d_out, _) in shapes.items()}
    return MergeCalibration(moments, dict.fromkeys(experts, moments),
                            Winners(list(experts), counts, sums))  # fmt: skip


def merge_naively(experts: Mapping[str, Lora], density: float) -> Lora:
    """TIES with everything dense at once, and a whole SVD per layer."""
    names = list(next(iter(experts.values())))
    dense = {n: torch.stack([e[n].delta for e in experts.values()]) for n in names}
    rank, merged = RANK * len(experts), {}
    for name, deltas in dense.items():
        flat = deltas.abs().flatten(1)
        least = flat.sort(1).values[:, flat.shape[1] - int(density * flat.shape[1])]
        kept = torch.where(deltas.abs() >= least[:, None, None], deltas, 0)
        agrees = (kept.sign() == kept.sum(0).sign()) & (kept != 0)
        mean = torch.where(agrees, kept, 0).sum(0) / agrees.sum(0).clamp(min=1)
        u, s, vt = torch.linalg.svd(mean, full_matrices=False)
        merged[name] = LoraLayer(s[:rank, None] * vt[:rank], u[:, :rank])
    return merged


def measure(side: str, method: str, count: int) -> dict[str, float]:
    """Seconds, and peak memory as a multiple of the experts' size."""
    shapes = layer_shapes()
    before = reset_peak_memory()
    experts = random_experts(shapes, count)
    size = count * RANK * sum(map(sum, shapes.values())) * 4 / 2**20
    calibration = random_calibration(shapes, experts) if method in ("co_merge", "regmean") else None
    extra = reset_peak_memory() - before - size if calibration else 0.0
    start = time.monotonic()
    if side == "naive":
        merge_naively(experts, RECIPES[NAIVE]["density"])
    else:
        merge_experts(experts, MergeRecipe.of(method, RECIPES.get(method, {})), calibration)
    seconds = time.monotonic() - start
    return {"seconds": seconds, "memory": (peak_memory() - before - max(0.0, extra)) / size}


def run_case(side: str, method: str, count: int) -> dict[str, float]:
    """``measure`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.merge", "--case", side, method, str(count)],
        capture_output=True, text=True, check=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)},
    )  # fmt: skip
    return json.loads(done.stdout)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--skip-naive", action="store_true", help="the naive side takes minutes")
    args = parser.parse_args()
    if args.case:
        side, method, count = args.case
        print(json.dumps(measure(side, method, int(count))))
        return
    rows = []
    naive = None if args.skip_naive else run_case("naive", NAIVE, EXPERTS)
    for method in MERGE_METHODS:
        ours, theirs = run_case("ours", method, EXPERTS), naive if method == NAIVE else None
        for kind, unit in (("seconds", "s"), ("memory", "x size")):
            rows.append(row(f"{method}, {EXPERTS} experts, {kind}", ours[kind],
                            theirs and theirs[kind], unit, 1))  # fmt: skip
    for method in ("co_merge", NAIVE):
        for count in MANY:
            ours = run_case("ours", method, count)
            rows.append(row(f"{method}, {count} experts", ours["seconds"], None, "s", 1))
            rows.append(
                row(f"{method}, {count} experts, memory", ours["memory"], None, "x size", 1)
            )
    publish("merge", rows, rank=RANK, layers=len(layer_shapes()))


if __name__ == "__main__":
    main()
