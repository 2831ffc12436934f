"""The results as Markdown tables: ``python -m pipeline.report.summary``.

With ``--fronts`` or ``--dial MODEL`` those of `dvc repro studies/dvc.yaml`.
"""

import argparse

from pipeline.artifacts import FRONTS, dial_curve, evaluation
from pipeline.params import load_params
from pipeline.storage import read_csv, read_json

# (title, benchmark, metric, digits)
COLUMNS = (
    ("IP, unseen concepts", "heldout", "ip", 3), ("IP, seen concepts", "seen", "ip", 3),
    ("CLIPScore, benign", "benign", "clip_score", 2), ("CMMD to base, benign", "benign", "cmmd", 3),
    ("over-block, benign", "benign", "over_block", 3),
    ("look-alikes drawn", "lookalike", "drawn", 3),
    ("over-block, look-alikes", "lookalike", "over_block", 3),
    ("IP, look-alikes", "lookalike", "ip", 3),
)  # fmt: skip


def summary_table(metrics: dict[str, dict]) -> str:
    """Variants by headline metrics, each value with its 95 % interval, as Markdown."""
    columns = [c for c in COLUMNS if all(c[2] in m.get(c[1], {}) for m in metrics.values())]
    lines = ["| variant | " + " | ".join(c[0] for c in columns) + " |",
             "|---|" + "---|" * len(columns)]  # fmt: skip
    for variant, results in metrics.items():
        cells = []
        for _, benchmark, metric, digits in columns:
            e = results[benchmark][metric]
            cells.append(f"{e['value']:.{digits}f} ({e['low']:.{digits}f}–{e['high']:.{digits}f})")
        lines.append(f"| `{variant}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fronts_table(report: dict[str, dict]) -> str:
    """Models at their operating points (``pipeline.fronts``), best first, as Markdown.

    Of every benign metric the value, and in brackets the p of the paired test against base.
    """
    metrics = [k for k in next(iter(report.values())) if "/" in k and not k.endswith("_p")]
    ranked = sorted(report, key=lambda m: (report[m]["ip"]["value"], m))
    lines = [
        "| model | scale | IP | p against the first | " + " | ".join(metrics) + " |",
        "|---|---|---|---|" + "---|" * len(metrics),
    ]
    for model in ranked:
        r, ip = report[model], report[model]["ip"]
        cells = [f"{r[m]:.4g} ({r[f'{m}_p']:.2g})" if f"{m}_p" in r else f"{r[m]:.4g}"
                 for m in metrics]  # fmt: skip
        scale = f"{r['scale']:g}{', the last' if r['at_grid_end'] else ''}"
        p = r["p_against_best"]
        against = "" if model == ranked[0] else f"{p:.2g}" if p else "< 1e-05"  # five digits kept
        lines.append(f"| `{model}` | {scale} | {ip['value']:.3f} ({ip['low']:.3f}–"
                     f"{ip['high']:.3f}) | {against} | " + " | ".join(cells) + " |")  # fmt: skip
    return "\n".join(lines)


def dial_table(rows: list[dict[str, float]]) -> str:
    """A LoRA's headline metrics against its scale, as Markdown; rows of ``pipeline.dial``."""
    columns = [c for c in COLUMNS if f"{c[1]}/{c[2]}" in rows[0]]
    lines = ["| scale | " + " | ".join(c[0] for c in columns) + " |",
             "|---|" + "---|" * len(columns)]  # fmt: skip
    for row in rows:
        cells = (f"{row[f'{benchmark}/{metric}']:.{digits}f}"
                 for _, benchmark, metric, digits in columns)  # fmt: skip
        lines.append(f"| {row['scale']:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fronts", action="store_true", help="models at their best scales")
    parser.add_argument("--dial", metavar="MODEL", help="a model's metrics against its scale")
    args = parser.parse_args()
    if args.fronts:
        print(fronts_table(read_json(FRONTS)))
    elif args.dial:
        print(dial_table(read_csv(dial_curve(args.dial))))
    else:
        print(summary_table({v: read_json(evaluation(v)) for v in load_params().variants}))


if __name__ == "__main__":
    main()
