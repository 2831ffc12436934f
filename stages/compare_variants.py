"""Every model variant against base and against what ships: differences, intervals, p-values."""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.evaluate.compare import Comparer, summarize
from pipeline.evaluate.judged import check_judges, load_judged
from pipeline.evaluate.results import as_table
from pipeline.evaluate.side_effects import side_effects, words_of
from pipeline.params import load_params
from pipeline.storage import read_json, write_csv, write_json


def main() -> None:
    params = load_params()
    models = {v: load_judged(artifacts.benchmark_scores(v), v) for v in params.variants}
    shipped, rule = params.merge.method, params.judges.rule
    comparer = Comparer(models["base"], rule, params.evaluate.bootstrap, params.seed)
    write_json(artifacts.SUMMARY, {
        "rule": rule, "judges": check_judges(models.values()), "shipped": shipped,
        "against": summarize(models, comparer, ["base", shipped]),
    })  # fmt: skip
    words = words_of(load_prompts(params.benchmarks))
    write_json(artifacts.SIDE_EFFECTS, {
        v: side_effects(judged, models["base"], words, params.evaluate.bootstrap, params.seed)
        for v, judged in models.items() if v != "base"
    })  # fmt: skip
    evaluations = {v: read_json(artifacts.evaluation(v)) for v in params.variants}
    write_csv(artifacts.SUMMARY_TABLE, as_table(evaluations))


if __name__ == "__main__":
    run_stage(main)
