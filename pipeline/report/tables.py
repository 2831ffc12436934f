"""Numbers as table cells: value, interval, and what paired tests say of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.evaluate.measures import (
    benchmark_title,
    headline,
    in_order,
    measure,
    show,
    show_interval,
    split,
    title,
)
from pipeline.report.comparisons import describe, is_distance, is_untested, marks
from pipeline.report.data import BASE, Estimate, ReportData

ARROWS = {"lower": "↓", "higher": "↑"}


@dataclass(frozen=True)
class Cell:
    """One number. ``verdict`` and ``against_shipped`` are "better", "worse" or "" (not told apart,
    or not tested); ``untested`` as ``is_untested`` says."""

    text: str
    interval: str
    note: str
    verdict: str
    against_shipped: str
    tooltip: str
    untested: bool = False


@dataclass(frozen=True)
class Column:
    """A column's metric in words; ``group`` is its benchmark."""

    title: str
    group: str
    tooltip: str


@dataclass(frozen=True)
class Table:
    """Models by metrics."""

    columns: list[Column]
    rows: dict[str, list[Cell | None]]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The benchmarks over the columns, with how many each has."""
        groups: dict[str, int] = {}
        for column in self.columns:
            groups[column.group] = groups.get(column.group, 0) + 1
        return list(groups.items())


def make_cell(
    data: ReportData, model: str, benchmark: str, metric: str, estimate: Estimate
) -> Cell:
    """The cell of a model's metric with its marks."""
    kind = data.benchmarks[benchmark]
    found = {ref: data.comparison(ref, model, benchmark, metric) for ref in (BASE, data.shipped)
             if not is_distance(metric, model)}  # fmt: skip
    lines = [f"{title(metric, benchmark)}: {show(metric, estimate['value'])} "
             f"({show_interval(metric, estimate)}), n = {estimate['n']}"]  # fmt: skip
    lines += [describe(metric, kind, ref, c) for ref, c in found.items() if c]
    untested = is_untested(data.comparisons, model, benchmark, metric, kind)
    lines += [f"against {BASE}: not tested"] * untested
    return Cell(
        show(metric, estimate["value"]), show_interval(metric, estimate),
        note_on_base(metric, estimate) if model == BASE else "",
        *marks(data.comparisons, model, benchmark, metric, kind, data.shipped),
        "\n".join(lines), untested,
    )  # fmt: skip


def note_on_base(metric: str, estimate: Estimate) -> str:
    """What stands beside a number of base that is measured against base itself."""
    if not measure(metric).from_base:
        return ""
    return "other seeds" if estimate["value"] else "by definition"


def make_table(data: ReportData, columns: Sequence[tuple[str, str]], group: bool = True) -> Table:
    """All models by (benchmark, metric); absent values are None.

    ``group`` names columns by their metric alone, under their benchmark.
    """

    def column(benchmark: str, metric: str) -> Column:
        shown = measure(metric)
        _, category, _ = split(metric)
        arrow = "" if category else ARROWS.get(shown.better, "")
        better = f"; {shown.better} is better" if shown.better else ""
        return Column(f"{category or title(metric)} {arrow}".strip(),
                      benchmark_title(benchmark) if group else "",
                      f"{title(metric, benchmark)}: {shown.meaning}{better}")  # fmt: skip

    def cell(model: str, benchmark: str, metric: str) -> Cell | None:
        estimate = data.evaluations[model].get(benchmark, {}).get(metric)
        return estimate and make_cell(data, model, benchmark, metric, estimate)

    return Table([column(*c) for c in columns],
                 {m: [cell(m, *c) for c in columns] for m in data.models()})  # fmt: skip


def headline_table(data: ReportData) -> Table:
    """What stands for each benchmark."""
    return make_table(data, headline(data.benchmarks, data.evaluations.values()))


def _metrics_of(data: ReportData, benchmark: str) -> list[str]:
    return in_order({n for m in data.evaluations.values() for n in m.get(benchmark, {})})


def benchmark_tables(data: ReportData) -> dict[str, Table]:
    """Everything measured on whole benchmarks by the report's rule, by the benchmark's title."""
    names = {b: [n for n in _metrics_of(data, b) if not any(split(n)[1:])] for b in data.benchmarks}
    return {benchmark_title(b): make_table(data, [(b, n) for n in found], group=False)
            for b, found in names.items() if found}  # fmt: skip


def category_tables(data: ReportData) -> dict[str, Table]:
    """What is measured by category, by title of metric and benchmark."""
    tables = {}
    for benchmark in data.benchmarks:
        by_kind: dict[str, list[str]] = {}
        for name in _metrics_of(data, benchmark):
            kind, category, _ = split(name)
            if category:
                by_kind.setdefault(kind, []).append(name)
        for kind, names in by_kind.items():
            columns = [(benchmark, name) for name in names]
            tables[title(kind, benchmark)] = make_table(data, columns, group=False)
    return tables


def rule_tables(data: ReportData) -> dict[str, Table]:
    """IP by every published rule, for benchmarks that have it; the report's own rule first."""
    tables = {}
    for benchmark in data.benchmarks:
        others = [n for n in _metrics_of(data, benchmark)
                  if split(n)[2] not in ("", data.rule) and not split(n)[1]]  # fmt: skip
        if not others:
            continue
        own = split(others[0])[0]
        table = make_table(data, [(benchmark, n) for n in (own, *others)], group=False)
        rules = [f"{data.rule} (this report's)", *(split(n)[2] for n in others)]
        columns = [replace(c, title=r) for c, r in zip(table.columns, rules, strict=True)]
        tables[benchmark_title(benchmark)] = replace(table, columns=columns)
    return tables
