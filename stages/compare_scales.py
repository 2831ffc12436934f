"""Gathers the scaling curves: IP against the number of pairs, of concepts, and of experts."""

from itertools import product

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.storage import read_json, write_csv
from pipeline.studies.scaling import data_curve, merge_curve


def main() -> None:
    params = load_params()
    s, categories = params.scaling, params.taxonomy.categories
    runs = {run: "/".join(run) for run in product(categories, s.parts)}
    data = {
        run: (read_json(artifacts.part(name) / "training.json")["pairs"],
              read_json(artifacts.measured_part(name) / "metrics.json"))
        for run, name in runs.items()
    }  # fmt: skip
    merges = {n: read_json(artifacts.scaled_merge(str(n)) / "metrics.json") for n in s.experts}
    write_csv(artifacts.DATA_CURVE, data_curve(data, s.unsafe))
    write_csv(artifacts.MERGE_CURVE, merge_curve(merges, categories, s.unsafe, s.benign))


if __name__ == "__main__":
    run_stage(main)
