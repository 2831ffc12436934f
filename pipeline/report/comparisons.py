"""What a paired test says of two models, in words."""

from collections.abc import Mapping

from pipeline.evaluate.measures import (
    is_judged,
    measure,
    show_difference,
    show_size,
    split,
    title,
)
from pipeline.report.data import BASE, Comparison, Comparisons

UNDECIDED = "not told apart"
NBSP = "\u00a0"


def verdict(comparison: Comparison | None, metric: str, kind: str) -> str:
    """ "better" or "worse", and "" where the two models are not told apart, or neither is meant:
    see ``pipeline.evaluate.measures.is_judged``. ``kind`` is the benchmark's."""
    better = comparison["better"] if comparison else None
    if better is None or not is_judged(metric, kind):
        return ""
    return "better" if better else "worse"


def show_verdict(comparison: Comparison, metric: str, kind: str) -> str:
    """The outcome in words."""
    if comparison["better"] is not None and not is_judged(metric, kind):
        return "differs, as it is meant to"
    return verdict(comparison, metric, kind) or UNDECIDED


def p_value(p: float) -> str:
    """A p-value as it is printed."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def show_p(p: float) -> str:
    """A p-value in a sentence, where it stays on one line."""
    text = f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"
    return text.replace(" ", NBSP)


def show_bounds(metric: str, comparison: Comparison) -> str:
    """The interval of a difference, "" where it has none."""
    bounds = [comparison.get(key) for key in ("low", "high")]
    return "" if None in bounds else " to ".join(show_difference(metric, b) for b in bounds)


def show_detectable(metric: str, comparison: Comparison) -> str:
    """The difference that would have shown, "" where it is not known."""
    shown = comparison.get("detectable")
    return "" if shown is None else show_size(metric, shown)


def is_distance(metric: str, model: str) -> bool:
    """Whether a metric says how far a model is from base, so that base itself has no place in it.

    A difference to base's value then says nothing: that is of other seeds, or 0 by definition.
    """
    return model == BASE and measure(metric).from_base


def marks(
    comparisons: Comparisons, model: str, benchmark: str, metric: str, kind: str, shipped: str
) -> tuple[str, str]:
    """The verdicts of a model's metric against base and against the model that ships."""
    if is_distance(metric, model):
        return "", ""
    tests = (comparisons.get(ref, {}).get(model, {}).get(f"{benchmark}/{metric}")
             for ref in (BASE, shipped))  # fmt: skip
    against_base, against_shipped = (verdict(test, metric, kind) for test in tests)
    return against_base, "" if shipped == BASE else against_shipped


def is_untested(
    comparisons: Comparisons, model: str, benchmark: str, metric: str, kind: str
) -> bool:
    """Whether no test says how a number compares with base's, although one is expected.

    That is of what stands for a kind of benchmark, by no category and no other rule.
    """
    expected = kind in measure(metric).headline and not any(split(metric)[1:])
    tests = comparisons.get(BASE, {}).get(model, {})
    return model != BASE and expected and f"{benchmark}/{metric}" not in tests


def show_change(metric: str, reference: str, comparison: Comparison) -> str:
    """A difference with its interval and p."""
    if is_distance(metric, reference):
        return show_p(comparison["p"])
    bounds = show_bounds(metric, comparison)
    return (show_difference(metric, comparison["difference"]) + (f" ({bounds})" if bounds else "")
            + f", {show_p(comparison['p'])}")  # fmt: skip


def describe(metric: str, kind: str, reference: str, comparison: Comparison) -> str:
    """A comparison in one line."""
    shown = show_detectable(metric, comparison)
    power = f", {shown} would have shown" if shown else ""
    change = show_change(metric, reference, comparison)
    return (f"against {reference}: {change} (Holm), n = {comparison['n']}{power}: "
            f"{show_verdict(comparison, metric, kind)}")  # fmt: skip


def comparison_rows(
    reference: str, comparisons: Mapping[str, Mapping[str, Comparison]], kinds: Mapping[str, str]
) -> list[dict[str, str]]:
    """Every comparison with one reference, as text; ``kinds`` is benchmark to kind."""
    rows = []
    for model, tests in comparisons.items():
        for name, c in tests.items():
            benchmark, _, metric = name.partition("/")
            if is_distance(metric, model):
                continue
            rows.append({
                "model": model, "what": title(metric, benchmark), "n": str(c["n"]),
                "difference": "" if is_distance(metric, reference)
                else show_difference(metric, c["difference"]),
                "interval": show_bounds(metric, c), "p": p_value(c["p"]),
                "detectable": show_detectable(metric, c),
                "verdict": show_verdict(c, metric, kinds.get(benchmark, "")),
            })  # fmt: skip
    return rows
