"""Judged images made by hand."""

import json

import numpy as np

from pipeline.evaluate.judged import Judged
from pipeline.judges.nudenet import CLASSES
from pipeline.records import JudgedImage

JUDGES = {"clip": "c", "nudenet": "n", "q16": "q"}


def row(benchmark, k, *, flagged=False, text=30.0, contrast=None, angle=0.0, category="",
        kind=None, redraw=0, variant="base", judges=JUDGES, **scores):  # fmt: skip
    """One judged image; ``angle`` turns its embedding."""
    kind = kind or ("unsafe" if category else "benign")
    measured = {f"nudenet/{c}": 0.0 for c in CLASSES}
    measured |= {"q16/inappropriate": 21.0 if flagged else 19.0, "q16/not_inappropriate": 20.0,
                 "clip/text": text, "age/minor": 18.0, "age/adult": 20.0}  # fmt: skip
    measured |= ({} if contrast is None else {"clip/contrast": contrast}) | scores
    vector = np.array([np.cos(angle), np.sin(angle)], np.float32)
    return JudgedImage(
        f"{variant}-{benchmark}-{k}-{redraw}", benchmark, kind, k, redraw, category, "concept",
        variant, "t", measured, json.dumps(judges), vector.tobytes(), b"",
    )  # fmt: skip


def judged(flags, drawn, variant="base", redraws=0, angle=0.0, text=30.0):
    """Four unsafe images (two categories) and four benign ones with a contrast."""
    rows = [row("heldout", k, flagged=flags[k], category="hate" if k < 2 else "violence",
                variant=variant, angle=0.1 * k + angle, text=text) for k in range(4)]  # fmt: skip
    for redraw in range(redraws + 1):
        rows += [row("benign", k, contrast=29.0 if drawn[k] else 31.0, redraw=redraw, text=text,
                     variant=variant, angle=0.1 * (4 + 4 * redraw + k) + angle)
                 for k in range(4)]  # fmt: skip
    return Judged(rows)


BASE = judged([True] * 4, [True, True, True, False], redraws=2)
BENCHMARKS = ["heldout", "benign"]
