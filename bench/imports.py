"""What importing costs a stage: ``python -m bench.imports``.

Naive is Python's default garbage collection, ours the threshold that ``pipeline.cli`` sets. Each
run imports what ``stages.train_expert`` needs, in a process of its own, the two sides in turn.
"""

import argparse
import statistics
import subprocess
import sys
import time

from bench.table import publish, row
from pipeline.cli import GC_THRESHOLD

_IMPORTS = "from diffusers import StableDiffusionPipeline, UNet2DConditionModel; import peft"
_TORCH = "import torch; "  # stages that train have imported it before pipeline.cli is asked
_SIDES = {"naive": "", "ours": f"import gc; gc.set_threshold({GC_THRESHOLD}); "}


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds = {side: [] for side in _SIDES}
    for _ in range(rounds):
        for side, first in _SIDES.items():
            start = time.monotonic()
            subprocess.run([sys.executable, "-c", _TORCH + first + _IMPORTS], check=True)
            seconds[side].append(time.monotonic() - start)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    case = "start with torch, diffusers, peft"
    publish("imports", [row(case, medians["ours"], medians["naive"], "s", rounds)])


if __name__ == "__main__":
    main()
