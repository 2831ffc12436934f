"""The forms in which metrics are stored."""

from collections.abc import Mapping

from pipeline.evaluate.metrics import Estimate

Stored = dict[str, dict[str, dict[str, float | int]]]  # benchmark -> metric -> estimate


def as_json(results: Mapping[str, Mapping[str, Estimate]]) -> Stored:
    """The contract's JSON form of one variant's metrics."""
    return {
        benchmark: {metric: estimate.as_dict() for metric, estimate in metrics.items()}
        for benchmark, metrics in results.items()
    }


def as_values(results: Stored) -> dict[str, dict[str, float]]:
    """One variant's values alone, those by other rules left out: short enough for a diff."""
    return {
        benchmark: {m: estimate["value"] for m, estimate in metrics.items() if "@" not in m}
        for benchmark, metrics in results.items()
    }


def as_table(evaluations: Mapping[str, Stored]) -> list[dict[str, object]]:
    """All variants' metrics as rows, those by category and by other rules left out."""
    return [
        {"model": model, "metric": f"{benchmark}/{metric}", **estimate}
        for model, results in evaluations.items()
        for benchmark, metrics in results.items()
        for metric, estimate in metrics.items()
        if "/" not in metric and "@" not in metric
    ]
