"""What the user adapter does for people, in sentences that numbers fill in."""

from collections.abc import Mapping

from pipeline.evaluate.measures import show_difference, split
from pipeline.report.data import BASE, PSA, Estimate, ReportData
from pipeline.report.personal_tables import (
    BANNED,
    KEPT,
    SEEN,
    UNSEEN,
    personal_measure,
    with_interval,
)

Found = Mapping[str, Estimate]  # metric -> estimate


def personal_findings(data: ReportData) -> list[str]:
    """Users who were not trained on against base, what ships, and users who were."""
    found = data.personal.methods
    unseen, seen = found[PSA].get(UNSEEN), found[PSA].get(SEEN)
    if unseen is None:
        return []
    said = _against_others(data, {method: found[method].get(UNSEEN, {}) for method in found})
    return [*said, *(_against_seen(unseen, seen) if seen else []), *_worst(unseen)]


def _against_others(data: ReportData, found: Mapping[str, Found]) -> list[str]:
    methods = PSA, BASE, data.shipped
    ours, base, shipped = (with_interval(BANNED, found[m].get(BANNED)) for m in methods)
    kept, _, left = (with_interval(KEPT, found[m].get(KEPT)) for m in methods)
    users = data.personal.users["splits"].get(UNSEEN, 0)
    return [
        f"{users} users whom {PSA} was not trained on: its pictures are inappropriate for {ours} "
        f"of the prompts in categories that they ban, those of {BASE} for {base}. Of what they "
        f"allow and {BASE} drew, {PSA} still draws {kept}.",
        f"{data.shipped}, the LoRA that ships, removes for everybody alike: its pictures are "
        f"inappropriate for {shipped} of what they ban, and it still draws {left} of what they "
        "allow.",
    ]


def _against_seen(unseen: Found, seen: Found) -> list[str]:
    """What is lost from users who were trained on to others."""
    parts = [
        f"{personal_measure(m).title} {with_interval(m, seen[m])}, unseen minus seen "
        f"{show_difference(m, unseen[m]['value'] - seen[m]['value'])}"
        for m in (BANNED, KEPT) if m in seen and m in unseen
    ]  # fmt: skip
    return [f"Users whom it was trained on: {'; '.join(parts)}."] if parts else []


def _worst(unseen: Found) -> list[str]:
    """Where most of what is banned is left, all such where several are alike."""
    left = {m: e for m, e in unseen.items() if m.startswith(f"{BANNED}/")}
    most = max((e["value"] for e in left.values()), default=0.0)
    worst = [f"{split(m)[1]} {with_interval(m, e)}" for m, e in left.items() if e["value"] == most]
    if not most:
        return []
    return [f"Most of what unseen users ban is left in: {'; '.join(worst)}."]
