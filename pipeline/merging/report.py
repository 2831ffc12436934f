"""Which expert lives where in a merge, how experts interfere, and what a method kept of them."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch

from pipeline.lora import Lora
from pipeline.merging.lowrank import product
from pipeline.merging.methods import MergeResult
from pipeline.nullspace.moments import Winners

PAIR_COLUMNS = ("expert", "other", "cosine", "overlap", "sign_conflict")
ROWS = 256  # output rows whose signs are looked at together


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
    signs, 0.5 for independent ones. Only some rows of one layer's signs are in memory at a time.
    """
    names = list(experts)
    both, difference, changed = torch.zeros(3, len(names), len(names), dtype=torch.float64)
    for layer in next(iter(experts.values()), {}):
        for rows in torch.arange(len(experts[names[0]][layer].up)).split(ROWS):
            signs = torch.stack([
                (lora[layer].up[rows] @ lora[layer].down).sign().flatten()
                for lora in experts.values()
            ])  # fmt: skip
            used = signs.abs()
            both += used @ used.T
            difference += signs @ signs.T  # entries that agree less those that are opposite
            changed += used.sum(1)[:, None] + used.sum(1)[None]
    opposite, either = (both - difference) / 2, changed - both
    norms = {name: norm(lora) for name, lora in experts.items()}
    return [
        dict(zip(PAIR_COLUMNS, (
            one, other,
            _ratio(inner_products(experts[one], experts[other]), norms[one] * norms[other]),
            _ratio(float(both[i, j]), float(either[i, j])),
            _ratio(float(opposite[i, j]), float(both[i, j])),
        ), strict=True))
        for (i, one), (j, other) in combinations(enumerate(names), 2)
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
    ``interference`` has means over pairs, of the cosine's absolute value.
    """
    total = sum(row["rows"] for row in rows) / max(1, len(experts))
    won = {
        name: sum(row["rows_won"] * row["rows"] for row in rows if row["expert"] == name) / total
        for name in experts
    }
    means = {
        key: _round(sum(abs(pair[key]) for pair in pairs) / len(pairs)) if pairs else 0.0
        for key in PAIR_COLUMNS[2:]
    }
    return {
        "experts": {
            name: {"norm": _round(norm(lora)), "scale": scales[name], "rows_won": _round(won[name])}
            for name, lora in experts.items()
        },
        "interference": means,
    }


def describe_method(
    experts: Mapping[str, Lora], merged: MergeResult, strength: float
) -> dict[str, object]:
    """A method's part of ``metrics/merge.json``.

    ``norm`` is of the LoRA as saved. ``expert_kept`` says how much of each expert's delta the merge
    holds before ``strength``: their inner product over the expert's squared norm. It is 1 for the
    plain sum of experts that are orthogonal, and counts what others add along an expert too.
    """
    return {
        "strength": strength,
        "norm": _round(norm(merged.lora)),
        "rank": max((len(layer.down) for layer in merged.lora.values()), default=0),
        "energy_kept": _round(merged.energy_kept),
        "expert_kept": {
            name: _ratio(inner_products(lora, merged.lora) / strength, inner_products(lora, lora))
            for name, lora in experts.items()
        },
    }


def _ratio(part: float, whole: float) -> float:
    return _round(part / whole) if whole else 0.0


def _round(value: float) -> float:
    return round(value, 4)
