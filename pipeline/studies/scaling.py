"""How safety grows with the data, and with the number of experts that are merged."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.diffusion import load_noise_schedule, load_unet
from pipeline.errors import InputError
from pipeline.evaluate.metrics import Estimate, rate
from pipeline.latents import LatentPairs
from pipeline.merging.calibrate import calibrate_merge
from pipeline.merging.calibration import load_calibration
from pipeline.merging.methods import MergeRecipe
from pipeline.merging.preparation import Preparation, load_experts
from pipeline.merging.run import MergeOutputs, merge_and_save
from pipeline.nullspace.inputs import Calibration
from pipeline.sources import ModelSource

Stored = Mapping[str, Mapping[str, Mapping[str, float]]]  # benchmark -> metric -> estimate


def merge_some(
    folder: Path, source: ModelSource, experts: Mapping[str, Path],
    latents: Mapping[str, LatentPairs], how: Preparation, recipe: MergeRecipe, *, prompts: int,
    timesteps: Sequence[int], batch: int, seed: int,
) -> Path:  # fmt: skip
    """Calibrate and merge some of the experts, as ``calibrate_merge`` and ``merge_experts`` do.

    Returns the folder of the merged LoRA, which lies in ``folder`` with all that was made.
    """
    loaded, provenances = load_experts(experts)
    calibration = Calibration(
        load_unet(source), latents, load_noise_schedule(source), prompts, timesteps, seed, "merge",
        "merge.calibration_prompts", batch,
    )  # fmt: skip
    where = folder / "calibration"
    calibrate_merge(where, loaded, provenances, calibration, how, source.identity)
    merge_and_save(
        loaded, provenances, load_calibration(where, loaded, provenances, how), how, [recipe],
        seed, MergeOutputs(folder / "merged", folder / "merge.json", folder / "rows.csv",
                           folder / "interference.csv", folder / "experts.svg"),
    )  # fmt: skip
    return folder / "merged" / recipe.method


def pool_rates(rates: Sequence[Mapping[str, float]]) -> Estimate:
    """One rate over several sets of outcomes, no two with one in common, each a stored estimate."""
    hits = sum(round(r["value"] * r["n"]) for r in rates)
    return rate([True] * hits + [False] * (sum(r["n"] for r in rates) - hits))


def data_curve(
    runs: Mapping[tuple[str, str], tuple[int, Stored]], benchmark: str
) -> list[dict[str, object]]:
    """IP against the number of pairs, pooled over the categories' experts, each on its own prompts.

    ``runs`` is (category, part) -> pairs it was trained on, its metrics. A row per part: ``by``
    what (pairs of all concepts, or all pairs of some), ``size``, ``pairs`` of an expert on average,
    ``ip`` with ``ip/low``, ``ip/high``, ``ip/n``.
    """
    parts: dict[str, list[tuple[int, Stored]]] = defaultdict(list)
    for (_, part), run in runs.items():
        parts[part].append(run)
    rows = []
    for part, found in parts.items():
        by, _, size = part.partition("-")
        pooled = pool_rates([metrics[benchmark]["ip"] for _, metrics in found]).as_dict()
        rows.append({"by": by, "size": size, "pairs": sum(n for n, _ in found) / len(found),
                     **_cells("ip", pooled)})  # fmt: skip
    return sorted(rows, key=lambda row: (row["by"], row["pairs"]))


def merge_curve(
    runs: Mapping[int, Stored], categories: Sequence[str], unsafe: str, benign: Sequence[str]
) -> list[dict[str, object]]:
    """What a merge of the first n experts removes, and what it costs, against n.

    A row per n: ``ip`` over the merged categories' prompts, ``others`` over those of the rest (""
    where none is left), and the benign benchmarks' CMMD and share drawn, by "<benchmark>/<metric>";
    each with "/low", "/high" and "/n" of it. Raises InputError where a category has no prompts, or
    prompts are of several.
    """
    rows = []
    for count, metrics in sorted(runs.items()):
        mine, rest = categories[:count], categories[count:]
        by_category = [metrics[unsafe].get(f"ip/{c}") for c in categories]
        if None in by_category or sum(e["n"] for e in by_category) > metrics[unsafe]["ip"]["n"]:
            raise InputError(f"scaling.unsafe: {unsafe} must have prompts of every category, each "
                             "of one; name another benchmark")  # fmt: skip
        row: dict[str, object] = {"experts": count}
        for name, some in (("ip", mine), ("others", rest)):
            pooled = pool_rates([metrics[unsafe][f"ip/{c}"] for c in some]) if some else None
            row |= _cells(name, pooled.as_dict() if pooled else defaultdict(str))
        for name in benign:
            for metric in ("drawn", "cmmd"):
                if metric in metrics[name]:
                    row |= _cells(f"{name}/{metric}", metrics[name][metric])
        rows.append(row)
    return rows


def _cells(name: str, estimate: Mapping[str, object]) -> dict[str, object]:
    return {name: estimate["value"], **{f"{name}/{k}": estimate[k] for k in ("low", "high", "n")}}
