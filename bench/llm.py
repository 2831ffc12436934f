"""vLLM asked for everything at once against one request at a time: see docs/prompts.md to run it.

``.venv-vllm/bin/python -m bench.llm`` after ``make test-vllm`` has made that environment. Both
sides are one loaded engine on the bundled LM, in turn, with requests that neither has seen; the
category's definition is that of a real profile: the prefix cache keeps whole blocks of tokens, of
which the world's short definitions fill none on a CPU. Its hit rate is of all prompt tokens.
"""

import argparse
import time
from pathlib import Path

from bench.table import publish, row
from pipeline.artifacts import TESTBED
from pipeline.llm.chat import Sampling
from pipeline.llm.vllm import VllmEngine
from pipeline.prompts.template import request_pair
from pipeline.taxonomy import load_category

CATEGORY, PROFILES = "violence", Path("profiles/taxonomy")


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=96, help="of one batch")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    world, real = (load_category(folder / f"{CATEGORY}.yaml")
                   for folder in (TESTBED / "taxonomy", PROFILES))  # fmt: skip
    category = real.model_copy(update={"concepts": world.concepts})
    engine = VllmEngine(
        str(TESTBED / "lm"), None, Sampling(1.0, 1.0, 64), dtype="float32", tensor_parallel=1,
        gpu_memory=0.9, max_context=512, eager=True, reproducible=False,
    )  # fmt: skip

    def requests(count: int, first: int):
        concepts = category.train_concepts
        return [request_pair(category, concepts[k % len(concepts)], first + k)
                for k in range(count)]  # fmt: skip

    few = max(8, args.requests // 8)  # one at a time, for about as long
    engine.generate(requests(4, 0))
    together, single, seed = 0.0, 0.0, 1000
    for _ in range(args.rounds):
        start = time.monotonic()
        engine.generate(requests(args.requests, seed))
        together += time.monotonic() - start
        start = time.monotonic()
        for request in requests(few, seed + args.requests):
            engine.generate([request])
        single += time.monotonic() - start
        seed += 2 * args.requests
    speeds = args.requests * args.rounds / together, few * args.rounds / single
    publish("llm", [
        row("replies per second", *speeds, "1/s", args.rounds, higher_is_better=True),
        row("prefix cache hit rate", engine.prefix_hit_rate, None, "share", 1),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
