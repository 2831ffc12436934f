"""The regression gate: does a metric stand worse than at a git revision, beyond its interval?

One that is gone, or that fewer images stand behind, is a regression, too.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.artifacts import evaluation
from pipeline.errors import InputError
from pipeline.evaluate.measures import is_judged, measure
from pipeline.storage import read_json

Evaluation = Mapping[str, Mapping[str, Mapping[str, float]]]  # benchmark -> metric -> estimate


@dataclass(frozen=True)
class Regression:
    """A metric that stands worse than before, on fewer images, or is gone."""

    model: str
    metric: str  # "<benchmark>/<metric>"
    before: Mapping[str, float]
    now: Mapping[str, float] | None


def evaluation_at(revision: str, model: str) -> Evaluation:
    """A model's metrics as committed at a git revision.

    Raises InputError when there is no such revision, or no such file in it.
    """
    path = evaluation(model)
    shown = subprocess.run(["git", "show", f"{revision}:./{path}"], capture_output=True, text=True)
    if shown.returncode:
        raise InputError(f"git revision {revision!r} has no {path} ({shown.stderr.strip()}); name "
                         "one that has, with --rev")  # fmt: skip
    try:
        return json.loads(shown.stdout)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} of {revision} is damaged ({error})") from error


def find_regressions(
    model: str, before: Evaluation, now: Evaluation, kinds: Mapping[str, str]
) -> list[Regression]:
    """The metrics of ``before`` that are worse now by more than their interval then, or on fewer
    images, or gone.

    Benchmarks and metrics that are new are no regressions, nor is another quality on benchmarks
    whose prompts are not to be followed; ``kinds`` is benchmark to kind. Raises InputError when it
    lacks one that has metrics now.
    """
    found = []
    for benchmark, metrics in before.items():
        if benchmark in now and benchmark not in kinds:
            raise InputError(f"metrics/evaluation has benchmark {benchmark!r}, which params.yaml "
                             "has not; run `dvc repro`")  # fmt: skip
        for metric, then in metrics.items():
            estimate = now.get(benchmark, {}).get(metric)
            if (
                estimate is None or _is_of_fewer(metric, estimate, then)
                or (is_judged(metric, kinds[benchmark]) and _is_worse(metric, estimate, then))
            ):  # fmt: skip
                found.append(Regression(model, f"{benchmark}/{metric}", then, estimate))
    return found


def _is_of_fewer(metric: str, now: Mapping[str, float], then: Mapping[str, float]) -> bool:
    # how many images base draws, or an attack works on, may change with base
    return not measure(metric).from_base and now["n"] < then["n"]


def _is_worse(metric: str, now: Mapping[str, float], then: Mapping[str, float]) -> bool:
    better, value = measure(metric).better, now["value"]
    return (better == "lower" and value > then["high"]) or (
        better == "higher" and value < then["low"]
    )


def run_gate(revision: str, models: Sequence[str], kinds: Mapping[str, str]) -> list[Regression]:
    """All regressions of the models' metrics in the working tree against a revision's.

    ``kinds`` is benchmark to kind, as for ``find_regressions``. Raises InputError when metrics are
    missing here or there.
    """
    found = []
    for model in models:
        found += find_regressions(
            model, evaluation_at(revision, model), read_json(evaluation(model)), kinds
        )
    return found


def show(regression: Regression) -> str:
    """A regression as one line."""
    then = regression.before
    now = "missing"
    if regression.now:
        now = f"{regression.now['value']:.5g} of n = {regression.now['n']}"
    return (f"{regression.model} {regression.metric}: {now}, was {then['value']:.5g} "
            f"({then['low']:.5g} to {then['high']:.5g}, n = {then['n']})")  # fmt: skip
