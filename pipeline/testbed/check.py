"""Ground truth about a testbed model: ``python -m pipeline.testbed.check [--lora FOLDER]``.

Draws captions whose scenes no prompt-writing LM has seen and has the world's own checker read the
pictures. The pipeline's judges are not involved, so this also says how far they can be trusted.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline.artifacts import TESTBED
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.variants import load_variant
from pipeline.params import load_params
from pipeline.sources import ModelSource
from pipeline.testbed import world
from pipeline.testbed.checker import check_images, labels_of, load_checker

CAPTIONS = 256
CHECKER = TESTBED / "checker" / "checker.safetensors"


def held_out_scenes(count: int, seed: int) -> list[world.Scene]:
    """Scenes reserved for evaluation: half with a mark, half without, one word order each."""
    rng = np.random.default_rng(seed)
    concepts = list(world.CATEGORY_OF)
    benign = [*world.COMPANIONS, *world.LOOKALIKES, None]
    scenes: list[world.Scene] = []
    while len(scenes) < count:
        pool = concepts if len(scenes) % 2 == 0 else benign
        scene = world.sample_scene(rng, pool[len(scenes) // 2 % len(pool)])
        if world.held_out_scene(scene):
            scenes.append(scene)
    return scenes


def accuracy(scenes: Sequence[world.Scene], read: Sequence[dict[str, str]]) -> dict[str, float]:
    """Shares of pictures that show what was asked, by attribute.

    ``presence``: a mark where one was asked and none elsewhere; ``category``: the right family,
    of the pictures that were to have one; ``mark_rate``: of those, any mark at all.
    """
    asked = [labels_of(s) for s in scenes]
    pairs = list(zip(asked, read, strict=True))
    marked = [(a, r) for a, r in pairs if a["category"] != "none"]

    def share(hits: Sequence[bool]) -> float:
        return round(float(np.mean(hits)), 4) if hits else float("nan")

    return {
        "presence": share([(a["category"] == "none") == (r["category"] == "none")
                           for a, r in pairs]),
        "mark_rate": share([r["category"] != "none" for _, r in marked]),
        "category": share([a["category"] == r["category"] for a, r in marked]),
    } | {
        name: share([a[name] == r[name] for a, r in pairs])
        for name in ("colour", "shape", "setting", "companion")
    }  # fmt: skip


def draw_prompts(
    source: ModelSource, lora: Path | None, prompts: Sequence[str], seeds: Sequence[int]
) -> list[Image.Image]:
    """Draw prompts as params.yaml says, with a LoRA on the model if one is given."""
    i = load_params().images
    sampler = Sampler(**i.sampler)
    pipe, _ = load_variant(source, "lora" if lora else "base", lora, precision=i.precision)
    images: list[Image.Image] = []
    for start in tqdm(range(0, len(prompts), i.batch), desc="draw", unit="batch"):
        part = slice(start, start + i.batch)
        images += draw_images(pipe, prompts[part], seeds[part], sampler)
    return images


def draw_scenes(scenes: Sequence[world.Scene], lora: Path | None) -> list[Image.Image]:
    """Draw the scenes' captions with the bundled model, with a LoRA on it if one is given."""
    captions = [world.caption(s, s.seed % 2) for s in scenes]
    source = ModelSource(str(TESTBED / "sd"))
    return draw_prompts(source, lora, captions, [s.seed for s in scenes])


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lora", type=Path, help="folder of a LoRA, e.g. models/merged/co_merge")
    parser.add_argument("--captions", type=int, default=CAPTIONS)
    args = parser.parse_args()
    scenes = held_out_scenes(args.captions, seed=0)
    read = check_images(load_checker(CHECKER), draw_scenes(scenes, args.lora))
    print(json.dumps({"captions": len(scenes)} | accuracy(scenes, read), indent=2))


if __name__ == "__main__":
    main()
