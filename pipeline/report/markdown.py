"""The results as Markdown: headline table, strength dials, fronts, and the report in short."""

from collections.abc import Mapping, Sequence

from pipeline.evaluate.measures import (
    benchmark_title,
    headline,
    in_order,
    show,
    show_interval,
    split,
    title,
)
from pipeline.report.comparisons import marks
from pipeline.report.data import BASE, Comparisons, Metrics, ReportData
from pipeline.report.findings import changes, worst_category
from pipeline.report.personal_findings import personal_findings
from pipeline.report.personal_tables import (
    UNSEEN,
    methods_table,
    personal_measure,
    value_and_interval,
)
from pipeline.report.tables import note_on_base

LEGEND = ("Values with 95 % intervals. **Bold**: better than base; ✗: worse; neither: not told "
          "apart (paired tests on the same seeds, Holm-corrected, p < 0.05), which is not the same "
          "as equal. ≠: differs from the model that ships.")  # fmt: skip


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head, *body = ("| " + " | ".join(line) + " |" for line in (header, *rows))
    return "\n".join([head, "|" + "---|" * len(header), *body])


def summary_table(
    evaluations: Mapping[str, Metrics], benchmarks: Mapping[str, str],
    comparisons: Comparisons | None = None, shipped: str = "",
) -> str:  # fmt: skip
    """Models by headline metrics, each value with its 95 % interval and marks, as Markdown.

    ``benchmarks`` is name to kind; the marks are those of ``LEGEND``.
    """
    columns = headline(benchmarks, evaluations.values())
    rows = [
        [f"`{model}`"] + [
            _marked(model, benchmark, metric, results, benchmarks[benchmark], comparisons or {},
                    shipped)
            for benchmark, metric in columns
        ]
        for model, results in evaluations.items()
    ]  # fmt: skip
    return _markdown(["model", *(title(m, b) for b, m in columns)], rows)


PEOPLE = ("banned_ip", "allowed_preservation", "benign_clip_ratio/benign",
          "benign_clip_ratio/lookalike", "monotonicity_violations", "pass_rate", "psa_wins",
          "psa_losses")  # fmt: skip


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
    return _markdown(["method", *map(_people_title, metrics)], rows)


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
    bold = {"better": f"**{value}**", "worse": f"✗ {value}"}.get(verdict, value)
    note = note_on_base(metric, estimate) if model == BASE else ""
    inside = ", ".join(filter(None, (show_interval(metric, estimate), note)))
    return f"{bold}{differs and ' ≠'} ({inside})"


def summary_page(data: ReportData) -> str:
    """The report in short, as Markdown: what ships, what it changed, where it comes from."""
    evaluations = {model: data.evaluations[model] for model in data.models()}
    tables = [
        f"### `{data.shipped}`, {title(kind, benchmark)} by category\n\n{table}"
        for benchmark in data.benchmarks
        for kind, table in _category_tables(data, benchmark).items()
    ]
    made = "; ".join(f"{label}: {value}" for label, value in data.provenance.items())
    return "\n\n".join([
        f"## Safety alignment: `{data.shipped}` ships",
        summary_table(evaluations, data.benchmarks, data.comparisons, data.shipped),
        f"{LEGEND} IP by rule `{data.rule}`.",
        "### What changed against base", *_changes(data), *tables, *_personal(data),
        f"Provenance: {made or 'unknown'}",
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
    return {kind: _markdown(header, [cells(n) for n in names]) for kind, names in by_kind.items()}


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
    return ["### Personal boundaries, unseen users", said, _markdown(header, rows)]


def fronts_table(report: dict[str, dict]) -> str:
    """Models at their operating points (``pipeline.studies.fronts``), best first, as Markdown.

    Of every benign metric the value, and in brackets the p of the paired test against base.
    """
    metrics = [k for k in next(iter(report.values())) if "/" in k and not k.endswith("_p")]
    ranked = sorted(report, key=lambda m: (report[m]["ip"]["value"], m))
    rows = []
    for model in ranked:
        r, ip = report[model], report[model]["ip"]
        scale = f"{r['scale']:g}{', the last' if r['at_grid_end'] else ''}"
        p = r["p_against_best"]
        against = "" if model == ranked[0] else f"{p:.2g}" if p else "< 1e-05"  # five digits kept
        rows.append([
            f"`{model}`", scale, f"{show('ip', ip['value'])} ({show_interval('ip', ip)})", against,
            *(f"{r[m]:.4g} ({r[f'{m}_p']:.2g})" if f"{m}_p" in r else f"{r[m]:.4g}"
              for m in metrics),
        ])  # fmt: skip
    return _markdown(["model", "scale", "IP", "p against the first", *metrics], rows)


def dial_table(rows: Sequence[Mapping[str, float]], benchmarks: Mapping[str, str]) -> str:
    """A LoRA's headline metrics against its scale, as Markdown; rows of ``studies.dial``."""
    known: dict[str, dict[str, float]] = {name: {} for name in benchmarks}
    for column in rows[0]:
        benchmark, _, metric = column.partition("/")
        if benchmark in known:
            known[benchmark][metric] = 0.0
    columns = headline(benchmarks, [known])
    return _markdown(
        ["scale", *(title(m, b) for b, m in columns)],
        [[f"{row['scale']:g}", *(show(m, row[f"{b}/{m}"]) for b, m in columns)] for row in rows],
    )


def alone_table(found: Mapping[str, Metrics], unsafe: str, benign: Sequence[str]) -> str:
    """IP of every category, by expert alone, and what each costs, as Markdown."""
    costs = [
        (b, m) for b in benign for m in ("drawn", "cmmd") if m in next(iter(found.values()))[b]
    ]
    return _markdown(
        ["expert", *found, *(title(m, b) for b, m in costs)],
        [[expert, *(show("ip", metrics[unsafe][f"ip/{c}"]["value"]) for c in found),
          *(show(m, metrics[b][m]["value"]) for b, m in costs)]
         for expert, metrics in found.items()],
    )  # fmt: skip


def curve_tables(data: Sequence[Mapping[str, str]], merges: Sequence[Mapping[str, str]]) -> str:
    """The scaling curves, rows of ``studies.scaling`` as stored, as two Markdown tables."""

    def rate(row: Mapping[str, str]) -> str:
        shown = {k: float(row[k]) for k in ("low", "high")}
        return f"{show('ip', float(row['ip']))} ({show_interval('ip', shown)})"

    experts = [[row["experts"], rate(row), row["others"] and show("ip", float(row["others"])),
                *(show(name.partition("/")[2], float(row[name])) for name in row if "/" in name)]
               for row in merges]  # fmt: skip
    costs = [name for name in merges[0] if "/" in name]
    return "\n\n".join([
        _markdown(["pairs of", "pairs an expert", "IP on its category"],
                  [[f"{row['size']} of its concepts" if row["by"] == "concepts" else "all concepts",
                    f"{float(row['pairs']):.0f}", rate(row)] for row in data]),
        _markdown(["experts merged", "IP, their categories", "IP, the others",
                   *(title(m, b) for b, _, m in (name.partition("/") for name in costs))], experts),
    ])  # fmt: skip
