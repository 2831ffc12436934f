"""What the shipped model changed, in sentences that numbers fill in; for the page and Markdown."""

from dataclasses import dataclass

from pipeline.evaluate.measures import (
    benchmark_title,
    headline,
    in_order,
    is_judged,
    measure,
    show,
    show_interval,
    split,
    title,
)
from pipeline.records import BENIGN
from pipeline.report.comparisons import (
    UNDECIDED,
    show_change,
    show_detectable,
    show_p,
    verdict,
)
from pipeline.report.data import BASE, Comparison, ReportData
from pipeline.report.side_effects import what_words_changed
from pipeline.report.tables import note_on_base

WORDS = {"better": "better than base", "worse": "worse than base", "": UNDECIDED}


@dataclass(frozen=True)
class Finding:
    """One headline number of the shipped model beside base's. ``verdict`` as in a cell;
    ``tested`` is whether there is a paired test, ``detail`` says what it found."""

    title: str
    meaning: str
    value: str
    interval: str
    base: str
    base_note: str
    tested: bool
    verdict: str
    detail: str

    @property
    def words(self) -> str:
        """The verdict in words."""
        return WORDS[self.verdict] if self.tested else "no paired test"


def findings(data: ReportData) -> list[Finding]:
    """The shipped model's headline metrics."""
    ours, base = data.evaluations[data.shipped], data.evaluations[BASE]
    found = []
    for benchmark, metric in headline(data.benchmarks, [ours]):
        estimate, before = ours[benchmark][metric], base.get(benchmark, {}).get(metric)
        test = data.comparison(BASE, data.shipped, benchmark, metric)
        outcome = verdict(test, metric, data.benchmarks[benchmark])
        found.append(Finding(
            title(metric, benchmark), measure(metric).meaning,
            show(metric, estimate["value"]), show_interval(metric, estimate),
            show(metric, before["value"]) if before else "–",
            note_on_base(metric, before) if before else "",
            test is not None, outcome, _detail(metric, test, outcome),
        ))  # fmt: skip
    return found


def _detail(metric: str, test: Comparison | None, outcome: str) -> str:
    if test is None:
        return ""
    shown = "" if outcome else show_detectable(metric, test)
    return (
        f"{show_p(test['p'])}; {shown} would have shown"
        if shown
        else show_change(metric, BASE, test)
    )


def changes(data: ReportData) -> dict[str, list[str]]:
    """What the shipped model changed against base, beyond chance or not: "better", "worse", "".

    With what is not told apart, "", stands the difference that would have shown, where that is
    known. Quality on unsafe prompts is left out, which is meant to change. Last come the words of
    benign prompts that are drawn otherwise.
    """
    groups: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    tests = data.comparisons.get(BASE, {}).get(data.shipped, {})
    for benchmark, kind in data.benchmarks.items():
        prefix = f"{benchmark}/"
        names = in_order(n.removeprefix(prefix) for n in tests if n.startswith(prefix))
        for metric in (n for n in names if is_judged(n, kind)):
            test = tests[prefix + metric]
            outcome = verdict(test, metric, kind)
            detail = show_change(metric, BASE, test) if outcome else show_detectable(metric, test)
            name = title(metric, benchmark)
            groups[outcome].append(f"{name} ({detail})" if detail else name)
    for outcome in ("better", "worse"):
        groups[outcome] += filter(None, [what_words_changed(data, outcome)])
    return groups


def worst_category(data: ReportData) -> str:
    """The category in which the shipped model draws most of what it should not, "" without any."""
    found = [
        (e["value"], e["high"], benchmark, name)
        for benchmark in data.benchmarks if data.benchmarks[benchmark] != BENIGN
        for name, e in data.evaluations[data.shipped].get(benchmark, {}).items()
        if split(name)[1] and is_judged(name, data.benchmarks[benchmark])
    ]  # fmt: skip
    if not found:
        return ""
    _, _, benchmark, name = max(found)
    estimate = data.evaluations[data.shipped][benchmark][name]
    return (f"{split(name)[1]} on {benchmark_title(benchmark)}: {measure(name).title} "
            f"{show(name, estimate['value'])} ({show_interval(name, estimate)}), "
            f"n = {estimate['n']}")  # fmt: skip
