"""One merge by every recipe: the LoRA files, what they are made of, and the pictures of it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.figures import draw_expert_map
from pipeline.lora import Lora, save_lora
from pipeline.merging.calibration import MergeCalibration
from pipeline.merging.methods import MergeRecipe, merge_experts
from pipeline.merging.preparation import Preparation, Provenance, prepare_experts
from pipeline.merging.report import (
    PAIR_COLUMNS,
    describe_experts,
    describe_method,
    interference,
    rows_by_layer,
)
from pipeline.progress import progress_bar
from pipeline.storage import private_folder, remove_except, write_csv, write_json

log = logging.getLogger(__name__)
LOW_ENERGY = 0.9  # share of a merged delta's squared norm


@dataclass(frozen=True)
class MergeOutputs:
    """Where a merge is written."""

    merged: Path  # folder, one of each method in it
    metrics: Path
    rows: Path  # CSV: rows won and norm, by layer and expert
    pairs: Path  # CSV: interference, by pair of experts
    figure: Path  # SVG of the rows


def merge_and_save(
    experts: Mapping[str, Lora], provenances: Mapping[str, Provenance],
    calibration: MergeCalibration, how: Preparation, recipes: Sequence[MergeRecipe], seed: int,
    out: MergeOutputs,
) -> None:  # fmt: skip
    """Prepare the experts, merge them by every recipe, and write LoRAs, metrics and plots.

    What shaped a merge, experts included, is in its file's header.
    """
    prepared, scales = prepare_experts(experts, calibration.benign, calibration.unsafe, how)
    by_name = {recipe.method: recipe for recipe in recipes}
    activation = "count"
    if "co_merge" in by_name:
        activation = by_name["co_merge"].options.get("activation", activation)
    rows = rows_by_layer(prepared, calibration.winners, activation)
    pairs = interference(prepared)
    first = next(iter(provenances.values()))
    made = {
        "base_model": first["base_model"], "base_revision": first["base_revision"],
        "categories": list(prepared), "preparation": how.describe(), "expert_scale": scales,
        "experts": {name: provenances[name] for name in prepared}, "seed": seed,
    }  # fmt: skip
    metrics = describe_experts(prepared, scales, rows, pairs) | {"methods": {}}
    with progress_bar(len(recipes), "merge", "method") as bar:
        for method, recipe in by_name.items():
            merged = merge_experts(prepared, recipe, calibration, seed)
            described = describe_method(prepared, merged, recipe.strength)
            if merged.energy_kept < LOW_ENERGY:
                log.warning(
                    "%s: rank %d keeps %.0f %% of the merged delta; raise merge.methods.%s.rank",
                    method, described["rank"], 100 * merged.energy_kept, method,
                )  # fmt: skip
            metrics["methods"][method] = described
            header = made | {"method": method, "recipe": recipe.describe(), "merge": described}
            save_lora(out.merged / method, merged.lora, header)
            bar.update()
    remove_except(private_folder(out.merged), [out.merged / method for method in by_name])
    write_csv(out.rows, rows)
    write_csv(out.pairs, pairs, PAIR_COLUMNS)
    draw_expert_map(out.figure, rows)
    write_json(out.metrics, metrics)
