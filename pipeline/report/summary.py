"""The results as one Markdown table: ``python -m pipeline.report.summary``."""

import argparse

from pipeline.artifacts import evaluation
from pipeline.params import load_params
from pipeline.storage import read_json

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


def main() -> None:
    """Command line entry point."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(summary_table({v: read_json(evaluation(v)) for v in load_params().variants}))


if __name__ == "__main__":
    main()
