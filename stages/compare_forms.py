"""The user adapter in several forms, measured as ``evaluate_psa`` measures what ships."""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.evaluate.judged import load_complete
from pipeline.params import load_params
from pipeline.personal import evaluate as e
from pipeline.personal.files import load_space
from pipeline.personal.scored import Shown, shown_by_methods
from pipeline.personal.shown import PSA, shown_prompts
from pipeline.records import User
from pipeline.storage import read_rows, write_json


def main() -> None:
    params = load_params()
    settings, space = params.evaluate_psa, load_space(artifacts.USER_SPACE)
    candidates = load_prompts(settings.benchmarks)
    base = load_complete(artifacts.benchmark_scores(e.BASE), e.BASE, candidates,
                         settings.benchmarks)  # fmt: skip
    prompts = shown_prompts(candidates, **settings.shown, seed=params.seed)
    yardstick = e.make_yardstick(base, space, params.judges.rule, prompts, settings.bootstrap,
                                 params.seed)  # fmt: skip
    ours = shown_by_methods(artifacts.PSA_SCORES, params.psa.adapter.form == "gated")[PSA]
    forms = {
        name: Shown(artifacts.shown_by_form(name) / "scores" / name, name,
                    form.adapter.form == "gated")
        for name, form in params.forms.items()
    }  # fmt: skip
    methods = e.evaluate_methods(
        read_rows(artifacts.USERS, User), {PSA: ours} | forms, {}, yardstick
    )
    write_json(artifacts.FORMS, {name: methods[name] for name in forms})


if __name__ == "__main__":
    run_stage(main)
