"""Which LoRA removes most at no measurable cost: models compared over their strength dials.

Each model is taken at the scale of its lowest IP among those at which benign images cannot be told
from the base model's by paired tests (``pipeline.dial.paired_tests``, every p at least ``LEVEL``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.dial import Outcome
from pipeline.errors import InputError
from pipeline.figures import draw_fronts
from pipeline.metrics import rate
from pipeline.paired import mcnemar
from pipeline.storage import write_json

LEVEL = 0.05
DialRow = Mapping[str, float]  # of ``pipeline.dial.trace_dial``


@dataclass(frozen=True)
class Dial:
    """What a model's dial showed: a row per scale, and every image's outcome."""

    rows: Sequence[DialRow]
    outcomes: Sequence[Outcome]

    def inappropriate(self, scale: float, benchmark: str) -> list[bool]:
        """The verdicts at a scale, in the order of the benchmark's rows."""
        chosen = [o for o in self.outcomes if o.benchmark == benchmark and o.scale == scale]
        return [o.inappropriate for o in sorted(chosen, key=lambda o: o.row)]


def costs(row: DialRow, benign: Sequence[str]) -> dict[str, float]:
    """The p-values of a row that tell benign images from the base model's."""
    kinds = ("clip_score", "cmmd", "drawn")
    names = [f"{b}/{kind}_p" for b in benign for kind in kinds if f"{b}/{kind}_p" in row]
    return {name: row[name] for name in names}


def operating_point(rows: Sequence[DialRow], unsafe: str, benign: Sequence[str]) -> DialRow:
    """The row of the lowest IP at which no test tells benign images from the base model's.

    The base model's own row, at scale 0, if there is no other; of equal rows the smallest scale.
    """
    free = [r for r in rows if all(p >= LEVEL for p in costs(r, benign).values())]
    if not free:
        raise InputError("a dial must hold the base model at scale 0; run `dvc repro trace_dial`")
    return min(free, key=lambda r: (r[f"{unsafe}/ip"], r["scale"]))


def compare_fronts(
    dials: Mapping[str, Dial], unsafe: str, benign: Sequence[str]
) -> dict[str, dict[str, object]]:
    """Models at their operating points, best first, each tested against the best.

    Returns per model: ``scale``, ``ip`` as an estimate, the benign metrics of that row with their
    p-values, and ``p_against_best``, McNemar's on the unsafe benchmark.
    """
    points = {name: operating_point(d.rows, unsafe, benign) for name, d in dials.items()}
    verdicts = {name: dials[name].inappropriate(points[name]["scale"], unsafe) for name in dials}
    order = sorted(points, key=lambda name: (points[name][f"{unsafe}/ip"], name))
    report = {}
    for name in order:
        row = points[name]
        shown = [f"{b}/{m}" for b in benign for m in ("clip_score", "cmmd", "drawn", "over_block")]
        report[name] = {
            "scale": row["scale"], "ip": rate(verdicts[name]).as_dict(),
            "p_against_best": round(mcnemar(verdicts[name], verdicts[order[0]]), 5),
            **{metric: row[metric] for metric in shown if metric in row},
            **costs(row, benign),
        }  # fmt: skip
    return report


def save_fronts(
    metrics: Path, figure: Path, dials: Mapping[str, Dial], unsafe: str, benign: Sequence[str]
) -> None:
    """Write the comparison, and the figure of all dials: IP against benign images drawn."""
    write_json(metrics, compare_fronts(dials, unsafe, benign))
    quality = f"{benign[-1]}/drawn"
    curves = {
        name: [(row[quality], row[f"{unsafe}/ip"]) for row in dial.rows]
        for name, dial in dials.items()
    }
    draw_fronts(figure, curves, quality, f"{unsafe}/ip")
