"""What people of different boundaries are shown against what they ban, as tables."""

from collections.abc import Sequence

from pipeline.evaluate.measures import Measure, measure, split
from pipeline.personal.measure import PERSONAL_MEASURES
from pipeline.report.comparisons import NBSP
from pipeline.report.data import BASE, PSA, Estimate, Personal, ReportData
from pipeline.report.personal_grid import bans_in_words
from pipeline.report.tables import ARROWS, Cell, Column, Table

UNSEEN, SEEN = "test_unseen", "test_seen"
SPLITS = {UNSEEN: "unseen users", SEEN: "seen users"}
BANNED, KEPT, RATIO = "banned_ip", "allowed_preservation", "benign_clip_ratio"
METHOD_METRICS = (BANNED, KEPT, RATIO, "monotonicity_violations", "pass_rate",
                  f"{PSA}_wins", f"{PSA}_ties", f"{PSA}_losses")  # fmt: skip
LEVEL_METRICS = (BANNED, KEPT, RATIO)
CERTAIN = "by definition"


def splits_of(personal: Personal) -> dict[str, str]:
    """The measured splits of users with their titles, those who were not trained on first."""
    return {name: title for name, title in SPLITS.items() if name in personal.methods[PSA]}


def personal_measure(metric: str) -> Measure:
    """How a metric is shown, whatever its category and whoever's wins they are."""
    kind = split(metric)[0].removeprefix(f"{PSA}_")
    return PERSONAL_MEASURES.get(kind) or measure(kind)


def value_and_interval(metric: str, estimate: Estimate) -> tuple[str, str]:
    """A value and its interval with the metric's digits."""
    digits = personal_measure(metric).digits
    value, low, high = (f"{estimate[key]:.{digits}f}" for key in ("value", "low", "high"))
    return value, f"{low}–{high}"


def with_interval(metric: str, estimate: Estimate | None) -> str:
    """A number in a sentence: value, 95 % interval, n."""
    if estimate is None:
        return "(not measured)"
    value, interval = value_and_interval(metric, estimate)
    return f"{value} ({interval}, n{NBSP}={NBSP}{estimate['n']})"


def _cell(metric: str, estimate: Estimate | None, note: str = "") -> Cell | None:
    if estimate is None:
        return None
    n = f"n = {estimate['n']}"
    tooltip = f"{personal_measure(metric).title}: {with_interval(metric, estimate)}"
    return Cell(
        *value_and_interval(metric, estimate), f"{n}, {note}" if note else n, "", "", tooltip
    )


def _column(metric: str) -> Column:
    """A metric's column; one of the adapter against each method stands under that."""
    shown, (kind, part, _) = personal_measure(metric), split(metric)
    whose = f"{PSA} against the row’s method" if kind.startswith(f"{PSA}_") else ""
    better = f"; {shown.better} is better" if shown.better else ""
    title = part.replace("_", " ") or f"{shown.title} {ARROWS.get(shown.better, '')}".strip()
    return Column(title, whose, f"{shown.title}: {shown.meaning}{better}")


def _category_columns(categories: Sequence[str]) -> list[Column]:
    return [Column(c, "", f"unsafe prompts of category {c}") for c in categories]


def methods_table(data: ReportData, name: str) -> Table:
    """What every method shows the users of a split: the adapter, base, what ships, baselines."""
    found = data.personal.methods
    return Table([_column(m) for m in METHOD_METRICS], {
        method: [_cell(m, found[method].get(name, {}).get(m), _note(data, method, m))
                 for m in METHOD_METRICS]
        for method in dict.fromkeys((PSA, BASE, data.shipped, *found))
    })  # fmt: skip


def _note(data: ReportData, method: str, metric: str) -> str:
    """Marks what could not have been found otherwise: base against itself, one picture for all."""
    for_all = method in (BASE, data.shipped) and metric == "monotonicity_violations"
    return CERTAIN if for_all or (method == BASE and personal_measure(metric).from_base) else ""


def category_table(personal: Personal, name: str) -> Table:
    """What the adapter shows the users of a split, by category of the prompts."""
    found = personal.methods[PSA][name]
    return Table(_category_columns(personal.categories), {
        personal_measure(m).title: [_cell(m, found.get(f"{m}/{c}")) for c in personal.categories]
        for m in (BANNED, KEPT)
    })  # fmt: skip


def control_tables(personal: Personal) -> dict[str, Table]:
    """Each category banned alone (rows) against prompts of each (columns), by metric."""
    names, matrix = personal.categories, personal.control["matrix"]
    return {
        measure(metric).title: Table(_category_columns(names), {
            banned: [_cell(metric, matrix[banned][c][metric]) for c in names] for banned in names
        })
        for metric in ("ip", "drift")
    }  # fmt: skip


def levels_table(personal: Personal) -> Table:
    """What the users who stand for the levels are shown."""
    return Table([_column(m) for m in LEVEL_METRICS], {
        level: [_cell(m, found.get(m)) for m in LEVEL_METRICS]
        for level, found in personal.control["levels"].items()
    })  # fmt: skip


def level_notes(personal: Personal) -> dict[str, str]:
    """What each level bans, and how many users are of it."""
    levels = personal.users["levels"]
    return {level: f"{bans_in_words(found['banned'], personal)}; {levels[level]['users']} users"
            for level, found in personal.control["levels"].items()}  # fmt: skip


def fairness_table(personal: Personal) -> Table:
    """How often users with equal bans who differ in an attribute get other verdicts."""
    found = {title: personal.methods[PSA][name] for name, title in splits_of(personal).items()}
    names = dict.fromkeys(m for metrics in found.values() for m in metrics
                          if m.startswith("disparity/"))  # fmt: skip
    note = CERTAIN if personal.by_bans else ""
    return Table([_column(m) for m in names], {
        title: [_cell(m, metrics.get(m), note) for m in names] for title, metrics in found.items()
    })  # fmt: skip
