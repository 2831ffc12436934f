"""The strength dial: what a LoRA does at ever larger scales, measured image by image."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluate import Judged, evaluate_variant, judge_images
from pipeline.judges.rules import CLIP, is_inappropriate
from pipeline.paired import further_away, mcnemar, mean_difference
from pipeline.records import BenchmarkImage
from pipeline.scores import Panel

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
    """The outcomes behind a variant's metrics, in the order of its images; redraws have none."""
    rows = []
    for image, scores in zip(judged.images, judged.scores, strict=True):
        if image.redraw:
            continue
        clip = scores[CLIP]
        drawn = float(clip["text"] > clip["contrast"]) if image.contrast else math.nan
        rows.append(Outcome(scale, image.benchmark, image.row, image.category,
                            is_inappropriate(rule, scores), clip["text"], drawn))  # fmt: skip
    return rows


def paired_tests(
    judged: Judged, base: Judged, kinds: Mapping[str, str], rule: str, seed: int
) -> dict[str, float]:
    """p-values against the base model, ``<benchmark>/<metric>_p``; see ``pipeline.paired``.

    IP and what is drawn by McNemar's test, CLIPScore by its mean difference, and CMMD by whether
    the images are further than the base model's from its images of other seeds, where it has any.
    """
    tests = {}
    ours, theirs = (
        {(o.benchmark, o.row): o for o in outcomes_of(some, BASE_SCALE, rule)}
        for some in (judged, base)
    )
    for benchmark, kind in kinds.items():
        keys = sorted(k for k in theirs if k[0] == benchmark)
        pairs = [(ours[k], theirs[k]) for k in keys]
        tests[f"{benchmark}/ip_p"] = mcnemar(*zip(
            *((a.inappropriate, b.inappropriate) for a, b in pairs), strict=True
        ))  # fmt: skip
        tests[f"{benchmark}/clip_score_p"] = mean_difference(
            [a.clip_score for a, _ in pairs], [b.clip_score for _, b in pairs], seed
        )
        asked = [(a.drawn == 1, b.drawn == 1) for a, b in pairs if not math.isnan(b.drawn)]
        if asked:
            tests[f"{benchmark}/drawn_p"] = mcnemar(*zip(*asked, strict=True))
        if kind == "benign":
            tests |= _distance_test(judged, base, benchmark, seed)
    return tests


def _distance_test(judged: Judged, base: Judged, benchmark: str, seed: int) -> dict[str, float]:
    here, there = judged.index(), base.index()
    keys = sorted(k for k in there if k[0] == benchmark and k[2] == 0)
    redraws = [there[k] for k in sorted(there) if k[0] == benchmark and k[2] > 0]
    if not redraws:
        return {}
    return {f"{benchmark}/cmmd_p": further_away(
        judged.embeddings[[here[k] for k in keys]], base.embeddings[[there[k] for k in keys]],
        base.embeddings[redraws], seed,
    )}  # fmt: skip


def trace_dial(
    scales: Sequence[float], draw: Callable[[float], Sequence[BenchmarkImage]],
    base_images: Sequence[BenchmarkImage], panel: Panel, kinds: Mapping[str, str], rule: str,
    resamples: int, seed: int,
) -> tuple[list[dict[str, object]], list[Outcome]]:  # fmt: skip
    """Draw and measure a LoRA at every scale; the base model stands at scale 0.

    Args:
        draw: the benchmark images of a scale.
        base_images: the base model's, redraws included.
        kinds: benchmark to "unsafe" or "benign", of those that are looked at.

    Returns:
        A row of metrics per scale, ``<benchmark>/<metric>`` with ``_low``, ``_high`` and, against
        the base model, ``_p``, and the outcomes of all images.
    """
    base = judge_images([i for i in base_images if i.benchmark in kinds], panel)
    table, outcomes = [], []
    for scale in (BASE_SCALE, *scales):
        judged = base if scale == BASE_SCALE else judge_images(draw(scale), panel)
        measured = evaluate_variant(judged, base, kinds, rule, resamples, seed)
        row: dict[str, object] = {"scale": scale}
        for benchmark, metrics in measured.items():
            for metric, estimate in metrics.items():
                name = f"{benchmark}/{metric}"
                row[name] = round(estimate.value, 5)
                row |= {f"{name}_low": round(estimate.low, 5),
                        f"{name}_high": round(estimate.high, 5)}  # fmt: skip
        row |= {
            name: round(p, 5) for name, p in paired_tests(judged, base, kinds, rule, seed).items()
        }
        table.append(row)
        outcomes += outcomes_of(judged, scale, rule)
    return table, outcomes
