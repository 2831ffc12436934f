"""Merges experts into one LoRA, in the space of weight deltas (METHOD §1.3).

Every method is a function of one layer's deltas dW_i, i over the experts, which is exactly what its
definition says: sums of low-rank deltas are kept as stacked factors, never as averages of the
factors themselves, and a dense result becomes a LoRA by SVD, with the energy kept reported.
Experts come in prepared (``pipeline.merging.preparation``), weights included.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.lora import Lora, LoraLayer
from pipeline.merging.calibration import MergeCalibration
from pipeline.merging.lowrank import factorise, product, stack_scaled, truncate
from pipeline.merging.preparation import complete_experts
from pipeline.seeds import seed_for


@dataclass(frozen=True)
class MergeLayer:
    """One layer of all experts, in alphabetical order, and what a method may know beside it."""

    name: str
    experts: Mapping[str, LoraLayer]
    calibration: MergeCalibration | None  # None for methods that need none
    seed: int

    @property
    def known(self) -> MergeCalibration:
        """The calibration; InputError when there is none."""
        if self.calibration is None:
            raise InputError("this merge method needs a calibration: stage calibrate_merge")
        return self.calibration

    @property
    def layers(self) -> list[LoraLayer]:
        """The experts' layers."""
        return list(self.experts.values())

    def deltas(self) -> Iterator[Tensor]:
        """The experts' dense deltas (d_out, d_in), one at a time."""
        return (layer.delta for layer in self.layers)


Merged = LoraLayer | Tensor  # exact factors, or a dense delta (d_out, d_in)


def co_merge(layer: MergeLayer, *, activation: str = "count") -> LoraLayer:
    """Co-Merge by row: each output row is the most active expert's (AlignGuard, arXiv 2412.10493).

    Row j goes to the expert that wins the most calibration inputs there, or has the larger mean
    |activation|; see ``moments.Winners.rows``. Exact as one LoRA of rank n r.
    """
    known = layer.known
    if list(layer.experts) != list(known.winners.experts):
        raise InputError(
            f"winners were counted among {', '.join(known.winners.experts)}, and "
            f"{', '.join(layer.experts)} are merged; run `dvc repro calibrate_merge`"
        )
    winners = known.winners.rows(layer.name, activation)
    return stack_scaled(layer.layers, [(winners == i).float() for i in range(len(layer.experts))])


def average(layer: MergeLayer) -> LoraLayer:
    """The mean of the deltas (model soups, arXiv 2203.05482)."""
    return stack_scaled(layer.layers, [1 / len(layer.experts)] * len(layer.experts))


def weighted(layer: MergeLayer) -> LoraLayer:
    """The sum of the deltas, as weighted by the user (task arithmetic, arXiv 2212.04089)."""
    return stack_scaled(layer.layers, [1.0] * len(layer.experts))


def svd(layer: MergeLayer) -> LoraLayer:
    """The sum of the deltas, of which the recipe's rank keeps the strongest directions."""
    return weighted(layer)


def max_magnitude(layer: MergeLayer) -> Tensor:
    """Each entry is that of the expert whose delta is the largest there in magnitude.

    What Co-Merge by element comes to when all experts see the same inputs (METHOD §1.3).
    """
    best, *rest = layer.deltas()
    for delta in rest:
        best = torch.where(delta.abs() > best.abs(), delta, best)
    return best


def ties(layer: MergeLayer, *, density: float = 0.2) -> Tensor:
    """TIES (arXiv 2306.01708): trim, elect a sign per entry, and average those that agree.

    Of each delta the ``density`` share of entries that is largest in magnitude is kept, per layer
    (in the paper of the whole model). The elected sign is that of the kept entries' sum; the result
    the mean of the kept entries, other than 0, that have it.
    """
    least = [_least_kept(delta, density) for delta in layer.deltas()]

    def trimmed() -> Iterator[Tensor]:
        for delta, threshold in zip(layer.deltas(), least, strict=True):
            yield torch.where(delta.abs() >= threshold, delta, 0)

    sign = sum(trimmed()).sign()
    kept, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta in trimmed():
        agrees = (delta.sign() == sign) & (delta != 0)
        kept += torch.where(agrees, delta, 0)
        count += agrees
    return kept / count.clamp(min=1)


def _least_kept(delta: Tensor, density: float) -> float:
    """The smallest magnitude among a delta's ``density`` share of largest entries."""
    dropped = delta.numel() - math.ceil(density * delta.numel())
    return float(delta.abs().flatten().kthvalue(dropped + 1).values)


def dare(layer: MergeLayer, *, density: float = 0.5) -> Tensor:
    """DARE (arXiv 2311.03099): drop entries at random, rescale what is left, and add up.

    Each entry of each delta is kept with probability ``density`` and divided by it. The draw is
    seeded by expert and layer, so an expert's does not depend on the others. The result is of full
    rank: in wide layers a low rank keeps little of it (``MergeResult.energy_kept``).
    """
    total = torch.zeros(())
    for name, delta in zip(layer.experts, layer.deltas(), strict=True):
        generator = torch.Generator().manual_seed(seed_for(layer.seed, "dare", name, layer.name))
        kept = torch.rand(delta.shape, generator=generator) < density
        total = total + torch.where(kept, delta / density, 0)
    return total


def regmean(layer: MergeLayer, *, benign_weight: float = 1.0, ridge: float = 1e-4) -> LoraLayer:
    """RegMean (arXiv 2212.09849) with a benign null term [ours].

    The W that minimises sum_i E|(W - dW_i) h_i|^2 + benign_weight E|W h_b|^2, over inputs h_i of
    expert i's unsafe prompts and h_b of safe and benign ones: with their moments C,
    W = (sum_i dW_i C_i) (sum_i C_i + benign_weight C_b + e I)^-1, where e is ``ridge`` times the
    mean diagonal and keeps directions that no prompt uses at 0. Exact as one LoRA of rank n r.
    """
    known = layer.known
    system = benign_weight * known.benign[layer.name].double()
    downs = []
    for name, expert in layer.experts.items():
        moment = known.unsafe[name][layer.name].double()
        system += moment
        downs.append(moment @ expert.down.double().T)
    size = len(system)
    system += ridge * system.trace() / size * torch.eye(size, dtype=torch.float64)
    down = torch.cholesky_solve(torch.cat(downs, 1), torch.linalg.cholesky(system)).T
    return LoraLayer(down.float().contiguous(), torch.cat([x.up for x in layer.layers], 1))


# name -> method; options are keyword arguments, in params.yaml beside strength and rank
MERGE_METHODS: dict[str, Callable[..., Merged]] = {
    method.__name__: method
    for method in (co_merge, max_magnitude, average, weighted, ties, dare, svd, regmean)
}


@dataclass(frozen=True)
class MergeRecipe:
    """One method with its options; the merged delta is scaled by ``strength``."""

    method: str
    strength: float = 1.0
    rank: int | None = None  # of the merged LoRA, by SVD; None: exact, or the experts' ranks' sum
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in MERGE_METHODS:
            raise InputError(
                f"unknown merge method {self.method!r}; known: {', '.join(MERGE_METHODS)}"
            )
        if self.method == "svd" and self.rank is None:
            raise InputError("merge method svd needs a rank")
        takes = inspect.signature(MERGE_METHODS[self.method]).parameters.keys() - {"layer"}
        unknown = sorted(self.options.keys() - takes)
        if unknown:
            raise InputError(
                f"merge method {self.method} has no option {unknown[0]!r}; it has "
                f"{', '.join(sorted({'strength', 'rank', *takes}))}"
            )
        if not 0 < self.options.get("density", 1.0) <= 1:
            raise InputError(f"density must be above 0 and at most 1: {self.options['density']}")

    @classmethod
    def of(cls, method: str, values: Mapping[str, object]) -> "MergeRecipe":
        """From plain values, as in params.yaml's ``merge.methods``."""
        options = dict(values)
        shared = {key: options.pop(key) for key in ("strength", "rank") if key in options}
        return cls(method, **shared, options=options)

    def describe(self) -> dict[str, object]:
        """The settings as plain values."""
        return {"strength": self.strength, "rank": self.rank, **self.options}


@dataclass(frozen=True)
class MergeResult:
    """A merged LoRA and the share of its delta's energy (squared norm) that its rank kept."""

    lora: Lora
    energy_kept: float


def merge_experts(
    experts: Mapping[str, Lora], recipe: MergeRecipe, calibration: MergeCalibration | None = None,
    seed: int = 0,
) -> MergeResult:  # fmt: skip
    """Merge prepared experts by a named method, layer by layer, and scale the result.

    No expert merges to a LoRA without layers, and one expert to itself, whatever the method:
    methods decide between experts. The order of ``experts`` does not matter, and one without a
    layer adds nothing there.
    """
    method = MERGE_METHODS[recipe.method]
    complete = complete_experts(experts)
    lora, kept, whole = {}, 0.0, 0.0
    for name in next(iter(complete.values()), {}):
        layer = MergeLayer(name, {e: complete[e][name] for e in complete}, calibration, seed)
        merged = layer.layers[0] if len(complete) == 1 else method(layer, **recipe.options)
        cut = _to_rank(merged, recipe.rank, layer.layers)
        kept += product(cut, cut)
        whole += _energy(merged)
        lora[name] = LoraLayer(cut.down, cut.up * recipe.strength)
    if not math.isfinite(whole):
        raise InputError(f"merging by {recipe.method} gives NaN or infinity; look at its options")
    return MergeResult(lora, kept / whole if whole else 1.0)


def _to_rank(merged: Merged, rank: int | None, experts: Sequence[LoraLayer]) -> LoraLayer:
    if isinstance(merged, LoraLayer):
        return merged if rank is None else truncate(merged, rank)
    return factorise(merged, rank or sum(len(expert.down) for expert in experts))


def _energy(merged: Merged) -> float:
    if isinstance(merged, LoraLayer):
        return product(merged, merged)
    return float(merged.double().square().sum())
