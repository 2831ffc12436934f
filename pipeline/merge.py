"""Merges experts into one LoRA, in the space of weight deltas (METHOD §1.3).

Every method returns a LoRA that is exactly what its definition says: sums of low-rank deltas are
kept as stacked factors, never as averages of the factors themselves.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.calibration import (
    Calibration,
    WinnerCounts,
    benign_moments,
    check_experts,
    own_activation,
)
from pipeline.errors import InputError
from pipeline.lora import Lora, LoraLayer, save_lora
from pipeline.nullspace import null_projections, project_inputs
from pipeline.storage import write_json


def stack_scaled(layers: Sequence[LoraLayer], scales: Sequence[Tensor]) -> LoraLayer:
    """The exact LoRA of sum_i diag(scales[i]) up_i down_i; scales are scalars or (d_out,)."""
    ups = [layer.up * scale.reshape(-1, 1) for layer, scale in zip(layers, scales, strict=True)]
    return LoraLayer(torch.cat([layer.down for layer in layers]), torch.cat(ups, 1))


def co_merge(experts: Sequence[Lora], counts: WinnerCounts) -> Lora:
    """Co-Merge by row: each output row of each layer is the most active expert's.

    Row j of layer l goes to the expert that wins most calibration inputs there; ties go to the
    larger mean |activation|, then to the lower index. Exact as one LoRA of rank n r.
    """
    merged = {}
    for layer in experts[0]:
        winners = winning_rows(counts, layer)
        masks = [(winners == i).float() for i in range(len(experts))]
        merged[layer] = stack_scaled([e[layer] for e in experts], masks)
    return merged


def winning_rows(counts: WinnerCounts, layer: str) -> Tensor:
    """The index of the expert that wins each output row of a layer, (d_out,) int64."""
    won, sums = counts.counts[layer], counts.sums[layer]
    tied = won == won.max(0).values
    return sums.masked_fill(~tied, -1).argmax(0)


def _weighted_sum(experts: Sequence[Lora], weight: float) -> Lora:
    weights = [torch.tensor(weight)] * len(experts)
    return {layer: stack_scaled([e[layer] for e in experts], weights) for layer in experts[0]}


def average(experts: Sequence[Lora], counts: WinnerCounts) -> Lora:
    """The mean of the experts' deltas; needs no calibration."""
    return _weighted_sum(experts, 1 / len(experts))


def task_arithmetic(experts: Sequence[Lora], counts: WinnerCounts) -> Lora:
    """The sum of the experts' deltas; needs no calibration."""
    return _weighted_sum(experts, 1.0)


def scale_lora(lora: Lora, factor: float) -> Lora:
    """The LoRA whose deltas are ``factor`` times as large."""
    return {name: LoraLayer(layer.down, layer.up * factor) for name, layer in lora.items()}


# name -> method; each takes the experts and their calibration counts
MERGE_METHODS: dict[str, Callable[[Sequence[Lora], WinnerCounts], Lora]] = {
    "co_merge": co_merge,  # AlignGuard (arXiv 2412.10493), operational definition ours
    "average": average,  # model soups (arXiv 2203.05482)
    "task_arithmetic": task_arithmetic,  # arXiv 2212.04089
}


def project_experts(
    experts: Mapping[str, Lora], calibration: Calibration, damping: float | None
) -> dict[str, Lora]:  # fmt: skip
    """The experts, kept off what the safe prompts of all categories use (``pipeline.nullspace``).

    Each expert was at best kept off its own category's safe prompts. None leaves them as they are.
    """
    check_experts(experts)
    if damping is None:
        return dict(experts)
    moments = benign_moments(list(next(iter(experts.values()))), calibration)
    projections = null_projections(moments, damping)
    return {name: project_inputs(lora, projections) for name, lora in experts.items()}


def equalise_experts(
    experts: Mapping[str, Lora], calibration: Calibration
) -> tuple[dict[str, Lora], dict[str, float]]:  # fmt: skip
    """Scale experts so that all answer equally strongly to their own unsafe prompts [ours].

    A merge compares and adds the experts' activations; what one of them happens to have been
    trained too weakly or too strongly should not decide it. The scales, returned by name, have a
    geometric mean of about 1. Raises InputError when an expert does nothing on its own prompts.
    """
    strength = own_activation(experts, calibration)
    idle = [name for name, value in strength.items() if value == 0]
    if idle:
        raise InputError(f"expert {idle[0]} changes nothing; train it longer or leave it out")
    mean = math.exp(math.fsum(math.log(v) for v in strength.values()) / len(strength))
    scales = {name: round(mean / value, 4) for name, value in strength.items()}
    return {name: scale_lora(lora, scales[name]) for name, lora in experts.items()}, scales


def prepare_experts(
    experts: Mapping[str, Lora], calibration: Calibration, null_damping: float | None,
    equalise: bool,
) -> tuple[dict[str, Lora], dict[str, float]]:  # fmt: skip
    """What every merge method starts from: projected and equalised experts, and their scales."""
    prepared = project_experts(experts, calibration, null_damping)
    if equalise:
        return equalise_experts(prepared, calibration)
    return prepared, dict.fromkeys(prepared, 1.0)


def merge_experts(
    experts: Mapping[str, Lora], method: str, counts: WinnerCounts, strength: float = 1.0
) -> Lora:
    """Merge by a named method and scale the merged delta by ``strength``.

    Raises InputError for unknown names or experts that do not fit each other.
    """
    if method not in MERGE_METHODS:
        raise InputError(f"unknown merge method {method!r}; known: {', '.join(MERGE_METHODS)}")
    check_experts(experts)
    return scale_lora(MERGE_METHODS[method](list(experts.values()), counts), strength)


def describe_merge(
    experts: Mapping[str, Lora], merged: Mapping[str, Lora], counts: WinnerCounts
) -> dict[str, object]:
    """``metrics/merge.json``: rows won per expert, interference, and norms, of experts as merged.

    ``rows_won`` are shares of all rows, and what is missing to 1 no expert writes to.
    ``mean_pairwise_cosine`` is that of the experts' whole weight deltas, over pairs of experts.
    Only one layer's dense deltas are in memory at a time.
    """
    loras = {**experts, **merged}
    products = torch.zeros(len(loras), len(loras), dtype=torch.float64)
    won, rows = torch.zeros(len(experts)), 0
    for layer in counts.counts:
        used = counts.sums[layer].max(0).values > 0  # some rows no expert may write to
        won += torch.bincount(winning_rows(counts, layer)[used], minlength=len(experts))
        rows += len(used)
        deltas = torch.stack([lora[layer].delta.flatten().double() for lora in loras.values()])
        products += deltas @ deltas.T
    norms = products.diagonal().sqrt()
    n = len(experts)
    cosine = (products / norms.outer(norms).clamp(min=1e-12))[:n, :n]
    above = cosine[torch.ones(n, n).triu(1).bool()]
    norm = dict(zip(loras, (round(v, 4) for v in norms.tolist()), strict=True))
    return {
        "rows_won": {k: round(v, 4) for k, v in zip(experts, (won / rows).tolist(), strict=True)},
        "mean_pairwise_cosine": round(above.mean().item(), 4) if n > 1 else 0.0,
        "expert_norm": {k: norm[k] for k in experts},
        "merged_norm": {k: norm[k] for k in merged},
    }  # fmt: skip


def merge_and_save(
    experts: Mapping[str, Lora], provenances: Mapping[str, Mapping[str, object]],
    methods: Mapping[str, float], counts: WinnerCounts, folder: Path, metrics: Path,
    settings: Mapping[str, object], scales: Mapping[str, float],
) -> None:  # fmt: skip
    """Merge by every method, at its strength, into ``folder``/<method>.

    ``describe_merge`` and the experts' ``scales`` go to ``metrics``; ``settings``, all that shaped
    the merge, into each file's provenance.
    """
    merged = {m: merge_experts(experts, m, counts, strength) for m, strength in methods.items()}
    for method, lora in merged.items():
        made = {"strength": methods[method], "settings": dict(settings), "expert_scale": scales}
        save_lora(folder / method, lora, merge_provenance(provenances, method) | made)
    write_json(metrics, describe_merge(experts, merged, counts) | {"expert_scale": dict(scales)})


def merge_provenance(experts: Mapping[str, Mapping[str, object]], method: str) -> dict[str, object]:
    """The merged file's provenance: the method and that of every expert in it.

    Raises InputError when the experts were trained on different base models.
    """
    revisions = {name: p["base_revision"] for name, p in experts.items()}
    if len(set(revisions.values())) > 1:
        raise InputError(f"the experts are of different base models: {revisions}; run `dvc repro`")
    first = next(iter(experts.values()))
    return {
        "categories": list(experts), "method": method, "base_model": first["base_model"],
        "base_revision": first["base_revision"], "experts": dict(experts),
    }  # fmt: skip
