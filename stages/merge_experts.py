"""Merges the experts of all categories into one LoRA per method."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.merging.calibration import load_calibration
from pipeline.merging.methods import MergeRecipe
from pipeline.merging.preparation import Preparation, load_experts
from pipeline.merging.run import MergeOutputs, merge_and_save
from pipeline.params import load_params


def main() -> None:
    params = load_params()
    experts, provenances = load_experts(
        {c: artifacts.expert(c) for c in params.taxonomy.categories}
    )
    how = Preparation(**params.merge.preparation)
    merge_and_save(
        experts, provenances, load_calibration(artifacts.CALIBRATION, experts, provenances, how),
        how, [MergeRecipe.of(name, values) for name, values in params.merge.recipes.items()],
        params.seed,
        MergeOutputs(artifacts.MERGED, artifacts.MERGE_METRICS, artifacts.MERGE_ROWS,
                     artifacts.MERGE_PAIRS, artifacts.MERGE_MAP),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
