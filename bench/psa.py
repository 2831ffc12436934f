"""What the user adapter costs at inference: ``python -m bench.psa``, after `dvc repro train_psa`.

Pictures of the testbed's model with the adapter and without, one UNet pass of a model of Stable
Diffusion 1.5's shape likewise, and how many parameters the adapter has there, beside the paper's
form with its user vectors of 3,584 numbers.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from bench.models import sd15_unet
from bench.table import publish, row
from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.drawing.pipelines import draw_images, load_pipeline
from pipeline.drawing.sampler import Sampler
from pipeline.params import Params, load_params
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.pipeline import PersonalSafetyPipeline
from pipeline.personal.user_attention import UserBatch
from pipeline.seeds import seed_for
from pipeline.sources import ModelSource

PAPER_WIDTH = 3584  # of its user vectors
PAPER = AdapterSettings(form="attention", tokens=1)


def both(work: Callable[[], object], on: Callable[[], None], off: Callable[[], None], n: int):
    """Median seconds with the adapter and without, interleaved; the first round is thrown away."""
    taken: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(n + 1):
        for kind, switch in ((True, on), (False, off)):
            switch()
            start = time.monotonic()
            work()
            taken[kind].append(time.monotonic() - start)
    return (float(np.median(taken[kind][1:])) for kind in (True, False))


def testbed(params: Params, repeats: int) -> dict[str, object]:
    """Seconds for a batch of pictures."""
    source, i = ModelSource(**params.base_model.weights), params.images
    pipe = load_pipeline(source)
    prompts = [p.prompt for p in load_prompts(["heldout"])][: i.batch]
    seeds = [seed_for(0, p) for p in prompts]
    sampler = Sampler(**i.sampler)
    personal = PersonalSafetyPipeline.load(pipe, artifacts.PSA, source.identity)

    def on() -> None:
        personal.attach()
        personal.show([personal.space.strictest] * len(prompts))

    ours, naive = both(lambda: draw_images(pipe, prompts, seeds, sampler), on, personal.detach,
                       repeats)  # fmt: skip
    return row(f"testbed: {len(prompts)} images", ours, naive, "s", repeats)


def adapter_of(unet, params: Params, settings: AdapterSettings, width: int) -> PersonalAdapter:
    """An adapter of a UNet, untrained."""
    return PersonalAdapter(unet, settings, params.taxonomy.categories, width)


@torch.no_grad()
def sd15(params: Params, repeats: int) -> dict[str, object]:
    """Seconds for one UNet pass of one guided image."""
    unet = sd15_unet().eval()
    categories = len(params.taxonomy.categories)
    adapter = adapter_of(unet, params, AdapterSettings(**params.psa.adapter.model_dump()), 8)
    adapter.show(UserBatch.of(torch.zeros(2, 8), torch.ones(2, categories)))
    inputs = torch.randn(2, 4, 64, 64), torch.tensor([500, 500]), torch.randn(2, 77, 768)
    ours, naive = both(lambda: unet(*inputs), lambda: adapter.attach(unet), adapter.detach,
                       repeats)  # fmt: skip
    return row("SD1.5's shape: a UNet pass", ours, naive, "s", repeats)


def parameters(params: Params) -> dict[str, object]:
    """Millions of parameters on SD1.5, ours and the paper's form."""
    with torch.device("meta"):
        unet = sd15_unet()
        ours = adapter_of(unet, params, AdapterSettings(**params.psa.adapter.model_dump()), 8)
        paper = adapter_of(unet, params, PAPER, PAPER_WIDTH)
    counts = [sum(p.numel() for p in a.parameters()) / 1e6 for a in (ours, paper)]
    return row("SD1.5's shape: parameters", *counts, "M", 1)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    params = load_params()
    publish("psa", [testbed(params, args.repeats), sd15(params, max(1, args.repeats // 3)),
                    parameters(params)])  # fmt: skip


if __name__ == "__main__":
    main()
