"""Writes what is handed to others: the merged LoRA, for other programs too, and its model card."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.drawing.sampler import Sampler
from pipeline.evaluate.judged import check_judges, load_judged
from pipeline.evaluate.results import as_values
from pipeline.params import load_params
from pipeline.shipping.files import ship
from pipeline.sources import ModelSource
from pipeline.storage import read_json, write_json


def main() -> None:
    params = load_params()
    method, i = params.merge.method, params.images
    measured = read_json(artifacts.evaluation(method))
    ship(
        artifacts.SHIPPED,
        lora_folder=artifacts.MERGED / method,
        source=ModelSource(**params.base_model.weights),
        evaluation=measured,
        base_evaluation=read_json(artifacts.evaluation("base")),
        rule=params.judges.rule,
        judges=check_judges([load_judged(artifacts.benchmark_scores(method), method)]),
        sampler=Sampler(**i.sampler),
        **params.ship.model_dump(),
    )
    write_json(artifacts.SHIPPED_METRICS, {"method": method} | as_values(measured))


if __name__ == "__main__":
    run_stage(main)
