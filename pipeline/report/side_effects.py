"""Side effects: benign words that a model draws otherwise than base, for the page and Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.evaluate.measures import benchmark_title, measure, show_difference
from pipeline.records import BENIGN
from pipeline.report.comparisons import describe, show_bounds, show_change, verdict
from pipeline.report.data import BASE, Comparison, ReportData
from pipeline.report.tables import Cell, Column, Table

METRIC = "clip_score"  # what words are compared by
Words = Mapping[str, Comparison]


@dataclass(frozen=True)
class SideEffects:
    """What the page says of them: a sentence per model, and every word that some model changed.

    ``notes`` is word to how many prompts have it; without any changed word the table has no rows.
    """

    sentences: dict[str, str]
    table: Table
    notes: dict[str, str]


def changed_words(words: Words) -> dict[str, Comparison]:
    """The words whose images changed beyond chance, the most changed first."""
    changed = {word: c for word, c in words.items() if c["changed"]}
    return dict(sorted(changed.items(), key=lambda pair: (-abs(pair[1]["difference"]), pair[0])))


def count_words(words: Words) -> str:
    """How many words changed, of how many that were tested."""
    return f"{len(changed_words(words)) or 'none'} of {len(words)}"


def show_word(word: str, comparison: Comparison) -> str:
    """A word with its difference from base, 95 % interval and n."""
    return (f"{word} {show_difference(METRIC, comparison['difference'])} "
            f"({show_bounds(METRIC, comparison)}), n = {comparison['n']}")  # fmt: skip


def what_words_changed(data: ReportData, outcome: str) -> str:
    """The words that the shipped model draws "better" or "worse" than base, "" without any."""
    words = data.side_effects.get(data.shipped, {})
    found = [f"{word} ({show_change(METRIC, BASE, c)})" for word, c in changed_words(words).items()
             if _outcome(c) == outcome]  # fmt: skip
    if not found:
        return ""
    where = " and ".join(map(benchmark_title, data.benign()))
    return (f"{measure(METRIC).title} by word, {where}, {len(found)} of {len(words)}: "
            f"{', '.join(found)}")  # fmt: skip


def side_effects(data: ReportData) -> SideEffects | None:
    """The part of the page, None where side effects were not measured."""
    if not data.side_effects:
        return None
    models = [m for m in data.models() if m in data.side_effects]
    changed = {m: changed_words(data.side_effects[m]) for m in models}
    others = sorted({word for some in changed.values() for word in some})
    rows = dict.fromkeys([*changed.get(data.shipped, {}), *others])
    found = {w: [data.side_effects[m].get(w) for m in models] for w in rows}
    return SideEffects(
        {m: f"{count_words(data.side_effects[m])} words changed"
            + (f": {', '.join(changed[m])}" if changed[m] else "") for m in models},
        Table([Column(m, "", f"{measure(METRIC).title} of {m} minus that of {BASE}")
               for m in models],
              {w: [c and _cell(m, w, c) for m, c in zip(models, cells, strict=True)]
               for w, cells in found.items()}),
        {w: f"n = {next(c['n'] for c in cells if c)}" for w, cells in found.items()},
    )  # fmt: skip


def _cell(model: str, word: str, comparison: Comparison) -> Cell:
    tested = _as_test(comparison)
    return Cell(
        show_difference(METRIC, comparison["difference"]), show_bounds(METRIC, comparison), "",
        _outcome(comparison), "",
        f"{model}, prompts with {word}, {describe(METRIC, BENIGN, BASE, tested)}",
    )  # fmt: skip


def _outcome(comparison: Comparison) -> str:
    return verdict(_as_test(comparison), METRIC, BENIGN)


def _as_test(comparison: Comparison) -> Comparison:
    """The same with ``better``, as comparisons of whole benchmarks have it."""
    better = comparison["difference"] > 0 if comparison["changed"] else None
    return {**comparison, "better": better}
