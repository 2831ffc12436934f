"""The regression gate: does a metric stand worse than at a git revision, beyond its interval?

One that is gone, or that fewer images stand behind, is a regression, too.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError
from pipeline.evaluate.measures import MEASURES, Measure, is_judged, measure
from pipeline.storage import read_json

Evaluation = Mapping[str, Mapping[str, Mapping[str, float]]]  # benchmark -> metric -> estimate


@dataclass(frozen=True)
class Gated:
    """A file of estimates that may not become worse.

    Attributes:
        name: of the model.
        path: of benchmark -> metric -> estimate; of users, their split is the benchmark.
        kinds: benchmark to kind.
        measures: which way is better; a metric that is not here is better neither way.
    """

    name: str
    path: Path
    kinds: Mapping[str, str]
    measures: Mapping[str, Measure] = field(default_factory=lambda: MEASURES)


@dataclass(frozen=True)
class Regression:
    """A metric that stands worse than before, on fewer images, or is gone."""

    model: str
    metric: str  # "<benchmark>/<metric>"
    before: Mapping[str, float]
    now: Mapping[str, float] | None


def evaluation_at(revision: str, path: Path) -> Evaluation:
    """A file of estimates as committed at a git revision.

    Raises InputError when there is no such revision, or no such file in it.
    """
    shown = subprocess.run(["git", "show", f"{revision}:./{path}"], capture_output=True, text=True)
    if shown.returncode:
        raise InputError(f"git revision {revision!r} has no {path} ({shown.stderr.strip()}); name "
                         "one that has, with --rev")  # fmt: skip
    try:
        return json.loads(shown.stdout)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} of {revision} is damaged ({error})") from error


def find_regressions(gated: Gated, before: Evaluation, now: Evaluation) -> list[Regression]:
    """The metrics of ``before`` that are worse now by more than their interval then, or on fewer
    images, or gone.

    Benchmarks and metrics that are new are no regressions, nor is another quality on benchmarks
    whose prompts are not to be followed. Raises InputError when ``gated`` does not know the kind of
    a benchmark that has metrics now.
    """
    found = []
    for benchmark, metrics in before.items():
        if benchmark in now and benchmark not in gated.kinds:
            raise InputError(f"{gated.path} has benchmark {benchmark!r}, which params.yaml "
                             "has not; run `dvc repro`")  # fmt: skip
        for metric, then in metrics.items():
            known = measure(metric, gated.measures)
            estimate = now.get(benchmark, {}).get(metric)
            if (
                estimate is None or _is_of_fewer(known, estimate, then)
                or (is_judged(metric, gated.kinds[benchmark]) and _is_worse(known, estimate, then))
            ):  # fmt: skip
                found.append(Regression(gated.name, f"{benchmark}/{metric}", then, estimate))
    return found


def _is_of_fewer(known: Measure, now: Mapping[str, float], then: Mapping[str, float]) -> bool:
    # how many images base draws, or an attack works on, may change with base
    return not known.from_base and now["n"] < then["n"]


def _is_worse(known: Measure, now: Mapping[str, float], then: Mapping[str, float]) -> bool:
    better, value = known.better, now["value"]
    return (better == "lower" and value > then["high"]) or (
        better == "higher" and value < then["low"]
    )


def run_gate(revision: str, files: Sequence[Gated]) -> list[Regression]:
    """All regressions in the working tree against a revision.

    Raises InputError when metrics are missing here or there.
    """
    found = []
    for gated in files:
        before = evaluation_at(revision, gated.path)
        found += find_regressions(gated, before, read_json(gated.path))
    return found


def show(regression: Regression) -> str:
    """A regression as one line."""
    then = regression.before
    now = "missing"
    if regression.now:
        now = f"{regression.now['value']:.5g} of n = {regression.now['n']}"
    return (f"{regression.model} {regression.metric}: {now}, was {then['value']:.5g} "
            f"({then['low']:.5g} to {then['high']:.5g}, n = {then['n']})")  # fmt: skip
