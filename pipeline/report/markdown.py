"""The results as Markdown: headline table, side effects, and the report in short."""

from collections.abc import Mapping, Sequence

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
from pipeline.report.comparisons import is_untested, marks
from pipeline.report.data import BASE, Comparison, Comparisons, Metrics, ReportData
from pipeline.report.findings import changes, worst_category
from pipeline.report.personal_findings import personal_findings
from pipeline.report.personal_tables import (
    UNSEEN,
    methods_table,
    personal_measure,
    value_and_interval,
)
from pipeline.report.provenance import seconds_in_all
from pipeline.report.side_effects import METRIC, changed_words, count_words, show_word
from pipeline.report.tables import note_on_base

LEGEND = ("Values with 95 % intervals. **Bold**: better than base; ✗: worse; †: not tested against "
          "base; none of these: not told apart (paired tests on the same seeds, Holm-corrected, "
          "p < 0.05), which is not the same as equal. ≠: differs from the model that ships."
          )  # fmt: skip
WORDS_LEGEND = (f"{measure(METRIC).title} minus base's, over the benign prompts that have a word, "
                "of all benign benchmarks together; with 95 % intervals. Listed: p < 0.05 (paired "
                "tests, Holm-corrected over the words of a model). Words of few prompts are not "
                "tested; those of the same prompts change together.")  # fmt: skip


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the cells are Markdown already."""
    head, *body = ("| " + " | ".join(line) + " |" for line in (header, *rows))
    return "\n".join([head, "|" + "---|" * len(header), *body])


def summary_table(
    evaluations: Mapping[str, Metrics], benchmarks: Mapping[str, str], comparisons: Comparisons,
    shipped: str,
) -> str:  # fmt: skip
    """Models by headline metrics, each value with its 95 % interval and marks, as Markdown.

    ``benchmarks`` is name to kind; the marks are those of ``LEGEND``.
    """
    columns = headline(benchmarks, evaluations.values())
    rows = [
        [f"`{model}`"] + [
            _marked(model, benchmark, metric, results, benchmarks[benchmark], comparisons, shipped)
            for benchmark, metric in columns
        ]
        for model, results in evaluations.items()
    ]  # fmt: skip
    return as_markdown(["model", *(title(m, b) for b, m in columns)], rows)


PEOPLE = ("banned_ip", "allowed_preservation", "benign_clip_ratio/benign",
          "benign_clip_ratio/lookalike", "benign_cmmd/benign", "monotonicity_violations",
          "pass_rate", "psa_wins", "psa_losses")  # fmt: skip


def people_table(methods: Mapping[str, Metrics], users: str) -> str:
    """Methods by what they show the users of a split, values with 95 % intervals, as Markdown.

    ``methods`` is method to split to metric to estimate; what none of them has is left out.
    """
    found = {method: splits[users] for method, splits in methods.items()}
    metrics = [m for m in PEOPLE if any(m in some for some in found.values())]

    def cell(metric: str, estimate: Mapping[str, float] | None) -> str:
        return "{} ({})".format(*value_and_interval(metric, estimate)) if estimate else "–"

    rows = [[f"`{method}`", *(cell(m, some.get(m)) for m in metrics)]
            for method, some in found.items()]  # fmt: skip
    return as_markdown(["method", *map(_people_title, metrics)], rows)


def _people_title(metric: str) -> str:
    name, _, part = metric.partition("/")
    whose = "PSA's " if name.startswith("psa_") else ""
    return f"{whose}{personal_measure(name).title}{part and f', {benchmark_title(part)}'}"


def _marked(
    model: str, benchmark: str, metric: str, results: Metrics, kind: str,
    comparisons: Comparisons, shipped: str,
) -> str:  # fmt: skip
    estimate = results.get(benchmark, {}).get(metric)
    if estimate is None:
        return "–"
    value = show(metric, estimate["value"])
    verdict, differs = marks(comparisons, model, benchmark, metric, kind, shipped)
    untested = is_untested(comparisons, model, benchmark, metric, kind)
    bold = {"better": f"**{value}**", "worse": f"✗ {value}"}.get(verdict, value)
    note = note_on_base(metric, estimate) if model == BASE else ""
    inside = ", ".join(filter(None, (show_interval(metric, estimate), note)))
    return f"{bold}{' †' * untested}{differs and ' ≠'} ({inside})"


def summary_page(data: ReportData) -> str:
    """The report in short, as Markdown: what ships, what it changed, where it comes from."""
    evaluations = {model: data.evaluations[model] for model in data.models()}
    tables = [
        f"### `{data.shipped}`, {title(kind, benchmark)} by category\n\n{table}"
        for benchmark in data.benchmarks
        for kind, table in _category_tables(data, benchmark).items()
    ]
    made = "; ".join(f"{label}: {value}" for label, value in data.provenance.items())
    took = f"; stages, last runs: {seconds_in_all(data.times)}" if data.times else ""
    return "\n\n".join([
        f"## Safety alignment: `{data.shipped}` ships",
        summary_table(evaluations, data.benchmarks, data.comparisons, data.shipped),
        f"{LEGEND} IP by rule `{data.rule}`.",
        "### What changed against base", *_changes(data), *_side_effects(data), *tables,
        *_personal(data), f"Provenance: {made or 'unknown'}{took}",
    ]) + "\n"  # fmt: skip


def _changes(data: ReportData) -> list[str]:
    said = {
        "better": "Better",
        "worse": "Worse",
        "": "Not told apart; in brackets what would have shown",
    }
    groups = changes(data)
    if not any(groups.values()):
        return ["No paired tests."]
    lines = [f"- **{said[k]}**: {'; '.join(found) or 'nothing'}" for k, found in groups.items()]
    if worst := worst_category(data):
        lines.append(f"- **Worst category**: {worst}")
    return ["\n".join(lines)]


def _side_effects(data: ReportData) -> list[str]:
    """Which benign words every model draws otherwise, nothing where that was not measured."""
    found = {m: data.side_effects[m] for m in data.models() if m in data.side_effects}
    if not found:
        return []
    return ["### Side effects on benign words", side_effects_table(found), WORDS_LEGEND]


def side_effects_table(found: Mapping[str, Mapping[str, Comparison]]) -> str:
    """Models by the words of benign prompts that they draw otherwise than base, as Markdown.

    ``found`` is ``metrics/side_effects.json``; see ``WORDS_LEGEND``.
    """
    return as_markdown(["model", "words changed", "which, the most changed first"], [
        [f"`{model}`", count_words(words),
         "; ".join(show_word(*pair) for pair in changed_words(words).items()) or "–"]
        for model, words in found.items()
    ])  # fmt: skip


def _category_tables(data: ReportData, benchmark: str) -> dict[str, str]:
    models = [data.evaluations[m].get(benchmark, {}) for m in (BASE, data.shipped)]
    by_kind: dict[str, list[str]] = {}
    for name in in_order(n for n in models[1] if split(n)[1]):
        by_kind.setdefault(split(name)[0], []).append(name)

    def cells(name: str) -> list[str]:
        shown = [f"{show(name, m[name]['value'])} ({show_interval(name, m[name])})" if name in m
                 else "–" for m in models]  # fmt: skip
        return [split(name)[1], *shown, str(models[1][name]["n"])]

    header = ["category", "`base`", f"`{data.shipped}`", "n"]
    return {kind: as_markdown(header, [cells(n) for n in names]) for kind, names in by_kind.items()}


def _personal(data: ReportData) -> list[str]:
    """What users who were not trained on are shown, nothing where there is no user adapter."""
    if data.personal is None:
        return []
    table = methods_table(data, UNSEEN)
    header = ["shown by", *(f"{c.group}: {c.title}" if c.group else c.title
                            for c in table.columns)]  # fmt: skip
    rows = [
        [f"`{method}`", *(f"{c.text} ({c.interval}), {c.note}" if c else "–" for c in cells)]
        for method, cells in table.rows.items()
    ]
    said = "\n".join(f"- {sentence}" for sentence in personal_findings(data))
    return ["### Personal boundaries, unseen users", said, as_markdown(header, rows)]
