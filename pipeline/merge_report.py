"""Which expert lives where in a merge, how experts interfere, and what a method kept of them."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch

from pipeline.calibration import Winners
from pipeline.lora import Lora
from pipeline.lowrank import product
from pipeline.merge import MergeResult


def inner_products(one: Lora, other: Lora) -> float:
    """The inner product of two LoRAs' whole weight deltas."""
    return sum(product(one[layer], other[layer]) for layer in one.keys() & other.keys())


def norm(lora: Lora) -> float:
    """The Frobenius norm of a LoRA's whole weight delta."""
    return max(0.0, inner_products(lora, lora)) ** 0.5


def interference(experts: Mapping[str, Lora]) -> list[dict[str, object]]:
    """Pairs of experts: how their whole weight deltas agree or clash.

    ``cosine`` is that of the deltas, ``overlap`` the share of entries that both change (to the
    entries that either does), ``sign_conflict`` the share of these in which they have opposite
    signs, 0.5 for independent ones. Only one layer's signs are in memory at a time.
    """
    pairs = list(combinations(experts, 2))
    both, either, opposite = (dict.fromkeys(pairs, 0) for _ in range(3))
    for layer in next(iter(experts.values()), {}):
        signs = {name: lora[layer].delta.sign().to(torch.int8) for name, lora in experts.items()}
        for one, other in pairs:
            agreement = signs[one] * signs[other]
            both[one, other] += int(agreement.count_nonzero())
            opposite[one, other] += int((agreement < 0).sum())
            either[one, other] += int((signs[one] | signs[other]).count_nonzero())
    norms = {name: norm(lora) for name, lora in experts.items()}
    return [
        {"expert": one, "other": other,
         "cosine": _ratio(inner_products(experts[one], experts[other]), norms[one] * norms[other]),
         "overlap": _ratio(both[one, other], either[one, other]),
         "sign_conflict": _ratio(opposite[one, other], both[one, other])}
        for one, other in pairs
    ]  # fmt: skip


def rows_by_layer(
    experts: Mapping[str, Lora], winners: Winners, activation: str
) -> list[dict[str, object]]:
    """Per layer and expert: the share of the layer's output rows won, and the delta's norm.

    Rows that no expert writes to are won by none.
    """
    table = []
    for layer in next(iter(experts.values()), {}):
        won = winners.rows(layer, activation)
        used = winners.written(layer)
        for k, (name, lora) in enumerate(experts.items()):
            share = ((won == k) & used).float().mean().item()
            table.append(
                {
                    "layer": layer,
                    "expert": name,
                    "rows": len(won),
                    "rows_won": round(share, 4),
                    "norm": _round(norm({0: lora[layer]})),
                }
            )
    return table  # fmt: skip


def describe_experts(
    experts: Mapping[str, Lora], scales: Mapping[str, float], rows: Sequence[Mapping],
    pairs: Sequence[Mapping],
) -> dict[str, object]:  # fmt: skip
    """The experts' part of ``metrics/merge.json``, from the two tables above.

    ``rows_won`` are shares of all layers' rows; what is missing to 1 no expert writes to.
    """
    total = sum(row["rows"] for row in rows) / max(1, len(experts))
    won = {
        name: sum(row["rows_won"] * row["rows"] for row in rows if row["expert"] == name) / total
        for name in experts
    }
    means = {
        key: _round(sum(pair[key] for pair in pairs) / len(pairs)) if pairs else 0.0
        for key in ("cosine", "overlap", "sign_conflict")
    }
    return {
        "experts": {
            name: {"norm": _round(norm(lora)), "scale": scales[name], "rows_won": _round(won[name])}
            for name, lora in experts.items()
        },
        "interference": means,
    }


def describe_method(experts: Mapping[str, Lora], merged: MergeResult) -> dict[str, object]:
    """A method's part of ``metrics/merge.json``.

    ``expert_kept`` is how much of each expert's delta is in the merged one: the inner product
    over the expert's squared norm, 1 where all of it is.
    """
    return {
        "norm": _round(norm(merged.lora)),
        "rank": max((len(layer.down) for layer in merged.lora.values()), default=0),
        "energy_kept": _round(merged.energy_kept),
        "expert_kept": {
            name: _ratio(inner_products(lora, merged.lora), inner_products(lora, lora))
            for name, lora in experts.items()
        },
    }


def _ratio(part: float, whole: float) -> float:
    return _round(part / whole) if whole else 0.0


def _round(value: float) -> float:
    return round(value, 4)
