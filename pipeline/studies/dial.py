"""The strength dial: what a LoRA does at ever larger scales, measured image by image."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.evaluate.compare import Comparer
from pipeline.evaluate.judged import Judged
from pipeline.evaluate.measure import asked, drawn, evaluate_variant
from pipeline.judges.rules import CLIP
from pipeline.records import BenchmarkImage
from pipeline.scoring.benchmarks import judge_images
from pipeline.scoring.panel import Panel

BASE_SCALE = 0.0  # the base model itself


@dataclass(frozen=True)
class Outcome:
    """What became of one benchmark prompt at one scale; the same seed at all of them."""

    scale: float
    benchmark: str
    row: int
    category: str
    inappropriate: bool
    clip_score: float  # 100 x cosine of image and prompt
    drawn: float  # 1 if nearer to its prompt than to its contrast, else 0; NaN without a contrast


def outcomes_of(judged: Judged, scale: float, rule: str) -> list[Outcome]:
    """The outcomes behind a variant's metrics, by benchmark and row; redraws have none."""
    rows = []
    for benchmark in judged.benchmarks:
        keys = judged.keys(benchmark)
        with_contrast = asked(judged, keys)
        shown = dict(zip(with_contrast, map(float, drawn(judged, with_contrast)), strict=True))
        verdicts, scores = judged.verdicts(rule, keys), judged.values(f"{CLIP}/text", keys)
        for key, row, verdict, score in zip(
            keys, judged.select(keys), verdicts, scores, strict=True
        ):
            rows.append(Outcome(scale, benchmark, row.row, row.category, verdict, score,
                                shown.get(key, math.nan)))  # fmt: skip
    return rows


def trace_dial(
    scales: Sequence[float], draw: Callable[[float], Sequence[BenchmarkImage]], panel: Panel,
    comparer: Comparer,
) -> tuple[list[dict[str, object]], list[Outcome]]:  # fmt: skip
    """Draw and measure a LoRA at every scale; the base model stands at scale 0.

    Args:
        draw: the benchmark images of a scale.
        comparer: holds the base model's judged images, of the benchmarks that are looked at.

    Returns:
        A row of metrics per scale, ``<benchmark>/<metric>`` with ``_low``, ``_high`` and, against
        the base model, ``_p``, and the outcomes of all images.
    """
    base, rule = comparer.base, comparer.rule
    table, outcomes = [], []
    for scale in (BASE_SCALE, *scales):
        judged = base if scale == BASE_SCALE else Judged(judge_images(draw(scale), panel))
        measured = evaluate_variant(
            judged, base, list(base.benchmarks), rule, comparer.resamples, comparer.seed
        )
        row: dict[str, object] = {"scale": scale}
        for benchmark, metrics in measured.items():
            for metric, estimate in metrics.items():
                if "@" in metric or metric == "drift":  # base has none: columns are of all scales
                    continue
                name = f"{benchmark}/{metric}"
                row[name] = round(estimate.value, 5)
                row |= {f"{name}_low": round(estimate.low, 5),
                        f"{name}_high": round(estimate.high, 5)}  # fmt: skip
        compared = comparer.compare(judged, base)
        row |= {f"{name}_p": round(c.p, 5) for name, c in compared.items()}
        table.append(row)
        outcomes += outcomes_of(judged, scale, rule)
    return table, outcomes
