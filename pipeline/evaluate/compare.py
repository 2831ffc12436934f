"""Two models drew the same prompts from the same seeds: by how much they differ, and how surely."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from pipeline.evaluate.distances import cmmd
from pipeline.evaluate.judged import Judged, Key, check_judges, common_keys
from pipeline.evaluate.measure import asked, attacked, drawn, drifts
from pipeline.evaluate.measures import Results, headline, measure
from pipeline.evaluate.metrics import rounded
from pipeline.evaluate.paired import (
    detectable_difference,
    difference_interval,
    further_away,
    holm,
    mcnemar,
    mean_difference,
)
from pipeline.judges.rules import CLIP
from pipeline.records import ADVERSARIAL, BENIGN

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """A model's metric minus the reference model's, over the same prompts and seeds."""

    difference: float
    low: float | None  # 95 % paired bootstrap interval; CMMD's difference has none
    high: float | None
    n: int  # pairs of images
    p: float
    # smallest difference that so many pairs show with 80 % power; None where that is more than
    # there can be, or cannot be told from differences that are all alike
    detectable: float | None


@dataclass(frozen=True)
class Comparer:
    """Compares models by ``rule``; ``base`` is what drift and CMMD are measured from.

    ``tests`` is how many models p-values will be corrected for.
    """

    base: Judged
    rule: str
    resamples: int
    seed: int
    tests: int = 1

    def compare(self, model: Judged, reference: Judged) -> dict[str, Comparison]:
        """Every comparable metric of every benchmark, by "<benchmark>/<metric>".

        IP, attacks and what is drawn by McNemar's test, CLIPScore and drift by their mean
        difference. CMMD, on benign benchmarks: against the base model by whether the images are
        further than base's own from its images of other seeds, where it has any (one-sided);
        against another model by which of the two is further from base (two-sided).

        Raises InputError when an image or a score is missing, or judges differ.
        """
        check_judges([self.base, model, reference])
        found = {}
        for benchmark, kind in self.base.benchmarks.items():
            keys = common_keys(reference, self.base, benchmark)
            common_keys(model, self.base, benchmark)
            rows: dict[str, Comparison] = {
                "ip": self._outcomes(*(m.verdicts(self.rule, keys) for m in (model, reference))),
                "clip_score": self._values(
                    *(m.values(f"{CLIP}/text", keys) for m in (model, reference))
                ),
            }
            if reference is not self.base and model is not self.base:
                rows["drift"] = self._values(
                    *(drifts(m, self.base, keys) for m in (model, reference))
                )
            if kind == ADVERSARIAL and (some := attacked(self.base, self.rule, keys)):
                rows["asr"] = self._outcomes(
                    *(m.verdicts(self.rule, some) for m in (model, reference))
                )
            if kind == BENIGN and (some := asked(self.base, keys, model, reference)):
                rows["drawn"] = self._outcomes(drawn(model, some), drawn(reference, some))
            if kind == BENIGN and (distance := self._distances(model, reference, keys)):
                rows["cmmd"] = distance
            found |= {f"{benchmark}/{metric}": row for metric, row in rows.items()}
        return found

    def _outcomes(self, one: Sequence[bool], other: Sequence[bool]) -> Comparison:
        p = mcnemar(one, other)
        return _comparison(one, other, p, self.resamples, self.seed, self.tests, binary=True)

    def _values(self, one: Sequence[float], other: Sequence[float]) -> Comparison:
        return compare_values(one, other, self.resamples, self.seed, self.tests)

    def _distances(
        self, model: Judged, reference: Judged, keys: Sequence[Key]
    ) -> Comparison | None:
        one, other = model.embeddings(keys), reference.embeddings(keys)
        at_base = self.base.embeddings(keys)
        if reference is self.base:
            redraws = self.base.keys(keys[0][0], redraws=True)
            if not redraws:
                return None
            p = further_away(one, other, self.base.embeddings(redraws), self.seed, self.tests)
        else:
            sides = ((one, other), (other, one))
            smaller = min(further_away(*s, at_base, self.seed, 2 * self.tests) for s in sides)
            p = min(1.0, 2 * smaller)
        difference = cmmd(one, at_base) - cmmd(other, at_base)
        return Comparison(difference, None, None, len(keys), p, None)


def compare_values(
    one: Sequence[float], other: Sequence[float], resamples: int, seed: int, tests: int
) -> Comparison:
    """Two models' values on the same prompts, by their mean difference; ValueError for NaN.

    ``tests`` is how many p-values this one is corrected for.
    """
    p = mean_difference(one, other, seed, tests)
    return _comparison(one, other, p, resamples, seed, tests, binary=False)


def _comparison(
    one: Sequence[float], other: Sequence[float], p: float, resamples: int, seed: int,
    tests: int, binary: bool,
) -> Comparison:  # fmt: skip
    return Comparison(
        *difference_interval(one, other, resamples, seed), len(one), p,
        detectable_difference(one, other, LEVEL / tests, binary),
    )  # fmt: skip


def compare_all(
    models: Mapping[str, Judged], comparer: Comparer, references: Sequence[str]
) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    """Every model against each reference model: reference -> model -> metric -> comparison.

    p is corrected by Holm over the models that are compared with one reference in one metric;
    ``better`` is true or false where it is below ``LEVEL``, and None where the two were not told
    apart, which is not the same as equal.
    """
    report = {}
    for name in references:
        others = {m: j for m, j in models.items() if m != name}
        family = replace(comparer, tests=max(1, len(others)))
        found = {m: family.compare(j, models[name]) for m, j in others.items()}
        corrected: dict[str, dict[str, float]] = {m: {} for m in found}
        for metric in dict.fromkeys(metric for rows in found.values() for metric in rows):
            those = [m for m in found if metric in found[m]]
            for m, p in zip(those, holm([found[m][metric].p for m in those]), strict=True):
                corrected[m][metric] = p
        report[name] = {
            m: {metric: _row(metric, row, corrected[m][metric]) for metric, row in rows.items()}
            for m, rows in found.items()
        }
    return report


def _row(metric: str, comparison: Comparison, p: float) -> dict[str, object]:
    kind = metric.partition("/")[2]
    better = None
    if p < LEVEL:
        # CMMD's test against base is one-sided: it tells only that images are further away
        better = (comparison.difference < 0) == (measure(kind).better == "lower")
    return rounded(asdict(comparison) | {"p": p}) | {"better": better}


def summarize(
    evaluations: Mapping[str, Results], kinds: Mapping[str, str],
    against_base: Mapping[str, Mapping[str, Mapping[str, object]]],
) -> dict[str, dict[str, dict[str, object]]]:  # fmt: skip
    """The headline of every model: model -> metric -> value and, from base, p and ``better``.

    Args:
        evaluations: model -> its metrics as stored.
        kinds: benchmark -> kind, which says what stands for it.
        against_base: of ``compare_all``; what was not compared has a value only.
    """
    columns = headline(kinds, evaluations.values())
    table: dict[str, dict[str, dict[str, object]]] = {}
    for model, results in evaluations.items():
        compared, rows = against_base.get(model, {}), table.setdefault(model, {})
        for benchmark, metric in columns:
            name = f"{benchmark}/{metric}"
            if metric in results.get(benchmark, {}):
                tested = compared.get(name, {})
                rows[name] = {"value": results[benchmark][metric]["value"]} | {
                    key: tested[key] for key in ("p", "better") if key in tested
                }
    return table
