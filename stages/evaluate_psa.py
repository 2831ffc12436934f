"""What users are shown, measured: per-category control, fairness, quality, beside other methods."""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.evaluate.judged import load_complete
from pipeline.params import load_params
from pipeline.personal import evaluate as e
from pipeline.personal.files import load_space
from pipeline.personal.llm_judge import load_judge
from pipeline.personal.scored import shown_by_methods
from pipeline.personal.shown import PSA, shown_prompts
from pipeline.records import User
from pipeline.storage import read_rows, write_json


def main() -> None:
    params = load_params()
    settings, space = params.evaluate_psa, load_space(artifacts.USER_SPACE)
    candidates = load_prompts(settings.benchmarks)
    models = {v: load_complete(artifacts.benchmark_scores(v), v, candidates, settings.benchmarks)
              for v in (e.BASE, params.merge.method)}  # fmt: skip
    prompts = shown_prompts(candidates, **settings.shown, seed=params.seed)
    looking = load_judge(settings.judge and settings.judge.loading, params.taxonomy.folder,
                         space.categories, prompts,
                         [artifacts.PSA_IMAGES, *map(artifacts.benchmark, models)], params.seed,
                         settings.judge_attempts)  # fmt: skip
    yardstick = e.make_yardstick(models[e.BASE], space, params.judges.rule, prompts,
                                 settings.bootstrap, params.seed, **looking)  # fmt: skip
    personal = shown_by_methods(artifacts.PSA_SCORES, params.psa.adapter.form == "gated")
    methods = e.evaluate_methods(
        read_rows(artifacts.USERS, User), personal, e.same_for_all(models, yardstick), yardstick
    )
    write_json(artifacts.PSA_METRICS, methods.pop(PSA))
    write_json(artifacts.PSA_METHODS, methods)
    write_json(artifacts.PSA_CONTROL, e.evaluate_control(personal[PSA], yardstick))


if __name__ == "__main__":
    run_stage(main)
