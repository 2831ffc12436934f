"""What every merge starts from: experts that fit each other, kept off benign inputs, equal [ours].

In this order: the wanted categories and layers; the soft projection off what the safe prompts of
all categories use (``pipeline.nullspace``), since each expert was at best kept off its own; equal
strength on their own unsafe prompts; the weights that the user gave.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.errors import InputError
from pipeline.lora import Lora, load_lora
from pipeline.merging.lowrank import no_delta, scale_lora
from pipeline.nullspace.moments import Moments
from pipeline.nullspace.projection import project_experts

Provenance = dict[str, object]


@dataclass(frozen=True)
class Preparation:
    """How experts are prepared for merging."""

    weights: Mapping[str, float] = field(default_factory=dict)  # by category, 1 unless given
    layers: Sequence[str] = ("*",)  # patterns of the layers that are merged
    null_damping: float | None = None  # None leaves the experts' inputs as they are
    equalise: bool = False  # equal strength on their own unsafe prompts

    def of(self, categories: Collection[str]) -> "Preparation":
        """The same for some of the categories only."""
        kept = {c: weight for c, weight in self.weights.items() if c in categories}
        return replace(self, weights=kept)

    def describe(self) -> dict[str, object]:
        """The settings as plain values."""
        return asdict(self) | {"weights": dict(self.weights), "layers": list(self.layers)}


def load_experts(folders: Mapping[str, Path]) -> tuple[dict[str, Lora], dict[str, Provenance]]:
    """Read experts and their provenances, by name.

    Raises InputError, naming the files, for one that is missing, damaged, without provenance, NaN
    or a DoRA, and for experts of different base models or shapes.
    """
    loaded = {name: load_lora(folder) for name, folder in folders.items()}
    experts = {name: lora for name, (lora, _) in loaded.items()}
    provenances = {name: provenance for name, (_, provenance) in loaded.items()}
    revisions = {name: p.get("base_revision") for name, p in provenances.items()}
    first = next(iter(revisions), None)
    for name, revision in revisions.items():
        if revision is None:
            raise InputError(f"the header of {folders[name]} lacks base_revision; train it again "
                             f"with `dvc repro train_expert@{name}`")  # fmt: skip
        if revision != revisions[first]:
            raise InputError(
                f"the experts are of different base models: {folders[first]} of "
                f"{revisions[first]}, {folders[name]} of {revision}; run `dvc repro`"
            )
    check_experts(experts, {name: str(folder) for name, folder in folders.items()})
    return experts, provenances


def check_experts(experts: Mapping[str, Lora], files: Mapping[str, str] | None = None) -> None:
    """Raise InputError where two experts' deltas of a layer differ in shape, or one is a DoRA.

    ``files`` are the names that errors use; an expert may lack a layer, where it adds nothing.
    """
    files = files or {name: f"expert {name}" for name in experts}
    shapes: dict[str, tuple[str, tuple[int, int]]] = {}
    for name, lora in experts.items():
        for layer, value in lora.items():
            if value.magnitude is not None:
                raise InputError(
                    f"{files[name]} is a DoRA and cannot be merged: its delta depends on the base "
                    "weight; train the experts with experts.lora.dora: false"
                )
            shape = (len(value.up), value.down.shape[1])
            first, expected = shapes.setdefault(layer, (name, shape))
            if shape != expected:
                raise InputError(
                    f"{layer}: {files[first]} has shape {expected}, {files[name]} {shape}; "
                    "experts must be of one base model"
                )


def complete_experts(experts: Mapping[str, Lora]) -> dict[str, Lora]:
    """Experts by name in alphabetical order, all with every layer; missing ones add nothing."""
    shapes = {
        layer: (len(value.up), value.down.shape[1])
        for lora in experts.values()
        for layer, value in lora.items()
    }
    return {
        name: {layer: experts[name].get(layer) or no_delta(*shapes[layer])
               for layer in sorted(shapes)}
        for name in sorted(experts)
    }  # fmt: skip


def choose_experts(experts: Mapping[str, Lora], how: Preparation) -> dict[str, Lora]:
    """The experts whose weight is not 0, complete, with the wanted layers only.

    Raises InputError for weights of unknown categories or all 0, and for patterns that match no
    layer.
    """
    unknown = sorted(how.weights.keys() - experts.keys())
    if unknown:
        raise InputError(
            f"merge.weights names {unknown[0]!r}, which has no expert; there are "
            f"{', '.join(experts)}"
        )
    check_experts(experts)
    kept = {name: lora for name, lora in experts.items() if how.weights.get(name, 1.0) != 0}
    if not kept:
        raise InputError("no expert is left: that is the base model; give one of merge.weights")
    complete = complete_experts(kept)
    layers = next(iter(complete.values()))
    for pattern in how.layers:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise InputError(
                f"{pattern!r} of merge.layers matches no layer of the experts; there are such as "
                f"{next(iter(layers))}"
            )
    wanted = [layer for layer in layers if any(fnmatchcase(layer, p) for p in how.layers)]
    return {name: {layer: lora[layer] for layer in wanted} for name, lora in complete.items()}


def own_activation(lora: Lora, moments: Moments) -> float:
    """How strongly an expert answers to its own category's unsafe prompts.

    The root mean square of dW h over the layer's inputs h and outputs, and over layers:
    mean over inputs of |dW h|^2 is the trace of dW C dW^T.
    """
    squares, leader, moment = [], None, None
    for name in sorted(lora, key=moments.leaders.__getitem__):
        if moments.leaders[name] != leader:  # read once for all layers that share it
            leader, moment = moments.leaders[name], moments[name].double()
        down, up = lora[name].down.double(), lora[name].up.double()
        squares.append(float((up.T @ up * (down @ moment @ down.T)).sum()) / len(up))
    return math.sqrt(max(0.0, math.fsum(squares) / len(squares)))


def equalise_experts(
    experts: Mapping[str, Lora], unsafe: Mapping[str, Moments]
) -> dict[str, float]:
    """Scales, by name, with which all experts answer equally strongly to their own prompts.

    A merge compares and adds the experts' activations; what one of them happens to have been
    trained too weakly or too strongly should not decide it. The geometric mean of the scales is
    about 1. Raises InputError when an expert does nothing on its own prompts.
    """
    strength = {name: own_activation(lora, unsafe[name]) for name, lora in experts.items()}
    idle = [name for name, value in strength.items() if value == 0]
    if idle:
        raise InputError(f"expert {idle[0]} changes nothing; train it longer or leave it out")
    mean = math.exp(math.fsum(math.log(v) for v in strength.values()) / len(strength))
    return {name: round(mean / value, 4) for name, value in strength.items()}


def prepare_experts(
    experts: Mapping[str, Lora], benign: Moments, unsafe: Mapping[str, Moments], how: Preparation
) -> tuple[dict[str, Lora], dict[str, float]]:
    """The experts as merged, in alphabetical order, and the factor that each was scaled by.

    Args:
        experts: as trained, by category.
        benign: moments of the safe and benign prompts of all categories.
        unsafe: moments of each category's unsafe prompts.
        how: see ``Preparation``.
    """
    chosen = choose_experts(experts, how)
    if how.null_damping is not None:
        chosen = project_experts(chosen, benign, how.null_damping)
    scales = equalise_experts(chosen, unsafe) if how.equalise else dict.fromkeys(chosen, 1.0)
    scales = {name: scale * how.weights.get(name, 1.0) for name, scale in scales.items()}
    return {name: scale_lora(lora, scales[name]) for name, lora in chosen.items()}, scales
