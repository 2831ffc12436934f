"""What studies measured as Markdown tables: fronts, strength dials, experts alone, scaling."""

from collections.abc import Mapping, Sequence

from pipeline.evaluate.measures import headline, show, show_interval, title
from pipeline.report.data import Metrics
from pipeline.report.markdown import as_markdown
from pipeline.report.scaling import data_table, merge_table


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
    return as_markdown(["model", "scale", "IP", "p against the first", *metrics], rows)


def dial_table(rows: Sequence[Mapping[str, float]], benchmarks: Mapping[str, str]) -> str:
    """A LoRA's headline metrics against its scale, as Markdown; rows of ``studies.dial``."""
    known: dict[str, dict[str, float]] = {name: {} for name in benchmarks}
    for column in rows[0]:
        benchmark, _, metric = column.partition("/")
        if benchmark in known:
            known[benchmark][metric] = 0.0
    columns = headline(benchmarks, [known])
    return as_markdown(
        ["scale", *(title(m, b) for b, m in columns)],
        [[f"{row['scale']:g}", *(show(m, row[f"{b}/{m}"]) for b, m in columns)] for row in rows],
    )


def alone_table(found: Mapping[str, Metrics], unsafe: str, benign: Sequence[str]) -> str:
    """IP of every category, by expert alone, and what each costs, as Markdown.

    Values with 95 % intervals; n stands over them, since all experts drew the same prompts.
    """
    columns = {c: (unsafe, f"ip/{c}") for c in found} | {
        title(m, b): (b, m) for b in benign for m in ("drawn", "cmmd")
        if m in next(iter(found.values()))[b]
    }  # fmt: skip

    def n(benchmark: str, metric: str) -> str:
        return " or ".join(map(str, sorted({e[benchmark][metric]["n"] for e in found.values()})))

    def cell(metric: str, estimate: Mapping[str, float]) -> str:
        return f"{show(metric, estimate['value'])} ({show_interval(metric, estimate)})"

    return as_markdown(
        ["expert", *(f"{name}, n = {n(*column)}" for name, column in columns.items())],
        [[expert, *(cell(m, metrics[b][m]) for b, m in columns.values())]
         for expert, metrics in found.items()],
    )  # fmt: skip


def curve_tables(data: Sequence[Mapping[str, str]], merges: Sequence[Mapping[str, str]]) -> str:
    """The scaling curves, rows of ``studies.scaling`` as stored, as two Markdown tables."""
    return "\n\n".join(as_markdown(*table) for table in (data_table(data), merge_table(merges)))
