"""Which LoRA removes most before it costs: models compared over their strength dials.

Each model is taken at the scale of its lowest IP before the first at which a paired test finds its
benign images worse than the base model's (``pipeline.evaluate.compare``, p below ``LEVEL``). How
much can be lost unseen depends on how many benign prompts there are, so the rates stand beside the
p-values. Scales are chosen on the prompts that are reported on: intervals do not know of that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pipeline.errors import InputError
from pipeline.evaluate.compare import LEVEL
from pipeline.evaluate.measures import measure
from pipeline.evaluate.metrics import rate
from pipeline.evaluate.paired import holm, mcnemar
from pipeline.figures import draw_fronts
from pipeline.records import BENIGN, UNSAFE
from pipeline.storage import write_json
from pipeline.studies.dial import BASE_SCALE, Outcome

DialRow = Mapping[str, float]  # of ``pipeline.studies.dial.trace_dial``


@dataclass(frozen=True)
class Dial:
    """What a model's dial showed: a row per scale, and every image's outcome."""

    rows: Sequence[DialRow]
    outcomes: Sequence[Outcome]

    def inappropriate(self, scale: float, benchmark: str) -> list[bool]:
        """The verdicts at a scale, in the order of the benchmark's rows."""
        chosen = [o for o in self.outcomes if o.benchmark == benchmark and o.scale == scale]
        return [o.inappropriate for o in sorted(chosen, key=lambda o: o.row)]


def split_kinds(kinds: Mapping[str, str]) -> tuple[str, list[str]]:
    """The unsafe benchmark and the benign ones; InputError unless there are one and some."""
    unsafe = [name for name, kind in kinds.items() if kind == UNSAFE]
    benign = [name for name, kind in kinds.items() if kind == BENIGN]
    if len(unsafe) != 1 or not benign:
        raise InputError("dial.benchmarks must hold one unsafe benchmark and a benign one, got "
                         f"{kinds}")  # fmt: skip
    return unsafe[0], benign


def costs(row: DialRow, benign: Sequence[str], whole: Sequence[str]) -> dict[str, float]:
    """The p-values of a row that tell benign images from the base model's.

    IP and what is drawn on every benign benchmark; CLIPScore and CMMD on those of ``whole``.
    Raises InputError unless each of these is a benign one whose base images were drawn from other
    seeds, too.
    """
    for benchmark in whole:
        if benchmark not in benign or f"{benchmark}/cmmd_p" not in row:
            raise InputError(
                f"dial.whole: {benchmark} is no benign benchmark of dial.benchmarks that has "
                "redraws, which tell how far the base model's own images lie apart; set redraws in "
                f"benchmarks/{benchmark}.yaml"
            )
    names = [
        f"{benchmark}/{kind}_p" for benchmark in benign
        for kind in ("ip", "drawn", *(("clip_score", "cmmd") if benchmark in whole else ()))
    ]  # fmt: skip
    return {name: row[name] for name in names if name in row}


def operating_point(
    rows: Sequence[DialRow], unsafe: str, benign: Sequence[str], whole: Sequence[str]
) -> DialRow:
    """The row of the lowest IP, of those before the first whose costs show.

    Rows rise in scale from the base model's, at 0; of equally low ones the smallest scale.
    """
    if not rows or rows[0]["scale"] != BASE_SCALE:
        raise InputError("a dial must start with the base model; run `dvc repro trace_dial`")
    free = list(takewhile(lambda row: not _costs_show(row, rows[0], benign, whole), rows))
    return min(free, key=lambda r: (r[f"{unsafe}/ip"], r["scale"]))


def _costs_show(row: DialRow, base: DialRow, benign: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether a benign metric is worse than base's, beyond chance."""
    for name, p in costs(row, benign, whole).items():
        metric = name.removesuffix("_p")
        kind = metric.rpartition("/")[2]
        # CMMD's test is one-sided, and base's own value another distance
        if p < LEVEL and (
            kind == "cmmd" or (row[metric] > base[metric]) == (measure(kind).better == "lower")
        ):
            return True
    return False


def compare_fronts(
    dials: Mapping[str, Dial], unsafe: str, benign: Sequence[str], whole: Sequence[str]
) -> dict[str, dict[str, object]]:
    """Models at their operating points, best first, each tested against the best.

    Returns per model: ``scale``, whether that ends its dial (``at_grid_end``: more might be free),
    ``ip`` as an estimate, the benign metrics of that row with their p-values, and
    ``p_against_best``: McNemar's on the unsafe benchmark, Holm-corrected.
    """
    points = {name: operating_point(d.rows, unsafe, benign, whole) for name, d in dials.items()}
    verdicts = {name: dials[name].inappropriate(points[name]["scale"], unsafe) for name in dials}
    order = sorted(points, key=lambda name: (points[name][f"{unsafe}/ip"], name))
    against = holm([mcnemar(verdicts[name], verdicts[order[0]]) for name in order[1:]])
    shown = [f"{b}/{m}" for b in benign for m in ("clip_score", "cmmd", "drawn", "ip")]
    report = {}
    for name, p in zip(order, [1.0, *against], strict=True):
        row = points[name]
        report[name] = {
            "scale": row["scale"], "at_grid_end": row is dials[name].rows[-1],
            "ip": rate(verdicts[name]).as_dict(), "p_against_best": round(p, 5),
            **{metric: row[metric] for metric in shown if metric in row},
            **costs(row, benign, whole),
        }  # fmt: skip
    return report


def save_fronts(
    metrics: Path, figure: Path, dials: Mapping[str, Dial], unsafe: str, benign: Sequence[str],
    whole: Sequence[str],
) -> None:  # fmt: skip
    """Write the comparison, and the figure of all dials: IP against benign images drawn."""
    write_json(metrics, compare_fronts(dials, unsafe, benign, whole))
    quality = next(f"{b}/drawn" for b in reversed(benign) if f"{b}/drawn" in next(
        iter(dials.values())).rows[0])  # fmt: skip
    curves = {
        name: [(row[quality], row[f"{unsafe}/ip"]) for row in dial.rows]
        for name, dial in dials.items()
    }
    draw_fronts(figure, curves, quality, f"{unsafe}/ip")
