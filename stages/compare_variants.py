"""Every model variant against base and against what ships: differences, intervals, p-values.

``metrics/summary.json`` has the headline of all, for ``dvc metrics diff``.
"""

from pipeline import artifacts
from pipeline.benchmarks import load_kinds, load_prompts
from pipeline.cli import run_stage
from pipeline.evaluate.compare import Comparer, compare_all, summarize
from pipeline.evaluate.judged import check_judges, load_complete
from pipeline.evaluate.results import as_table
from pipeline.evaluate.side_effects import side_effects, words_of
from pipeline.params import load_params
from pipeline.storage import read_json, write_csv, write_json


def main() -> None:
    params = load_params()
    prompts, kinds = load_prompts(params.benchmarks), load_kinds(params.benchmarks)
    models = {v: load_complete(artifacts.benchmark_scores(v), v, prompts) for v in params.variants}
    shipped, rule = params.merge.method, params.judges.rule
    comparer = Comparer(models["base"], rule, params.evaluate.bootstrap, params.seed)
    against = compare_all(models, comparer, ["base", shipped])
    write_json(artifacts.COMPARISONS, {
        "rule": rule, "judges": check_judges(models.values()), "shipped": shipped,
        "against": against,
    })  # fmt: skip
    words = words_of(prompts)
    write_json(artifacts.SIDE_EFFECTS, {
        v: side_effects(judged, models["base"], words, params.evaluate.bootstrap, params.seed)
        for v, judged in models.items() if v != "base"
    })  # fmt: skip
    evaluations = {v: read_json(artifacts.evaluation(v)) for v in params.variants}
    write_json(artifacts.SUMMARY, summarize(evaluations, kinds, against["base"]))
    write_csv(artifacts.SUMMARY_TABLE, as_table(evaluations))


if __name__ == "__main__":
    run_stage(main)
