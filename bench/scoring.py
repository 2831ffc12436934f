"""What judging images costs: ``python -m bench.scoring``.

Pairs of images judged by the stage's own code (ours), against one metric after the other, each of
which opens every image and runs CLIP on it alone, as published evaluation code does (naive). Once
on the testbed's pictures and models, and once on photographs of 512 pixels by a CLIP of OpenAI's
size, whose weights are random: nothing of theirs is learnt, time is. Then NudeNet by itself. Both
sides run in turn, ours from stored shards to the stored scores.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image

from bench.table import publish, row
from pipeline.artifacts import TESTBED
from pipeline.judges.nudenet import NudeNet
from pipeline.pixels import decode_image, encode_png
from pipeline.records import SAFE, UNSAFE, DrawnImage, EncodedImage, PromptPair, Score
from pipeline.scoring.pairs import score_pairs
from pipeline.scoring.panel import Panel, load_panel
from pipeline.storage import write_rows
from pipeline.testbed import world

SHARD, BATCH = 64, 64
SIDES = (UNSAFE, SAFE)


@dataclass(frozen=True)
class Sample:
    """Pairs and their images, both sides of each in turn."""

    pairs: list[PromptPair]
    images: list[EncodedImage]
    folder: Path  # the same as shards

    @property
    def prompts(self) -> list[str]:
        """Of each image."""
        return [getattr(pair, f"prompt_{side}") for pair in self.pairs for side in SIDES]


def make_sample(folder: Path, pictures: Sequence[tuple[str, Image.Image]]) -> Sample:
    """A sample of captioned pictures, stored as drawing stores them."""
    pairs, rows = [], []
    for k in range(0, len(pictures), 2):
        texts = [caption for caption, _ in pictures[k : k + 2]]
        pairs.append(PromptPair(f"{k}", "c", "c", "train", *texts, "e", "m", "", "v", k))
        for side, (_, picture) in zip(SIDES, pictures[k : k + 2], strict=True):
            cell = encode_png(picture, f"{k}{side}")
            rows.append(DrawnImage(f"{k}{side}", f"{k}", side, 0, k, "m", "", "{}", cell))
    for k in range(0, len(rows), SHARD):
        write_rows(folder / f"shard-{k:05d}.parquet", DrawnImage, rows[k : k + SHARD])
    return Sample(pairs, [r.image for r in rows], folder)


def scenes(count: int) -> list[tuple[str, Image.Image]]:
    """Captioned pictures of the testbed's world."""
    rng = np.random.default_rng(0)
    companions = [*world.CATEGORY_OF, *world.COMPANIONS]
    drawn = [world.sample_scene(rng, companions[k % len(companions)]) for k in range(count)]
    return [(world.caption(scene), world.render(scene)) for scene in drawn]


def photographs(count: int) -> list[tuple[str, Image.Image]]:
    """Cuts of a portrait, 512 pixels a side."""
    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as opened:
        portrait = opened.convert("RGB")
    rng = np.random.default_rng(0)
    found = []
    for k in range(count):
        side = int(rng.integers(256, 512))
        x, y = int(rng.integers(0, 513 - side)), int(rng.integers(0, 601 - side))
        cut = portrait.crop((x, y, x + side, y + side)).resize((512, 512))
        found.append((f"a portrait of an officer, cut {k}", cut))
    return found


def random_clip(folder: Path, name: str) -> Panel:
    """A panel whose CLIP and Q16 have the shapes of an open_clip architecture, and no training."""
    import open_clip
    import torch
    from safetensors.torch import save_file, save_model

    config = open_clip.get_model_config(name)
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    folder.mkdir()
    save_model(model, folder / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    (folder / "open_clip_config.json").write_text(text)
    save_file({"prompts": torch.randn(2, config["embed_dim"])}, folder / "q16.safetensors")
    return load_panel(f"local-dir:{folder}", None, folder / "q16.safetensors", BATCH)


def judge(sample: Sample, panel: Panel) -> list[Score]:
    """Ours: everything in one pass."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scores.parquet"
        rows = list(score_pairs(sample.pairs, sample.folder, panel, Path(folder) / "unfinished"))
        write_rows(out, Score, rows)
    return rows


def judge_naively(sample: Sample, panel: Panel, detector: object) -> list[dict[str, float]]:
    """One metric after the other, image by image: NudeNet, Q16, CLIPScore, similarity."""
    clip = panel.clip

    def look() -> Iterator[object]:
        for image in sample.images:
            yield clip.embed_images([decode_image(image)])

    rows = [{"nudenet": len(detector.detect(image.bytes))} for image in sample.images]
    for found, vector in zip(rows, look(), strict=True):
        found |= panel.q16.score(vector)[0]
    for found, vector, prompt in zip(rows, look(), sample.prompts, strict=True):
        found["text"] = 100 * float(vector[0] @ clip.embed_texts([prompt])[0])
    vectors = [vector[0] for vector in look()]
    for k, found in enumerate(rows):
        found["similarity"] = float(vectors[k] @ vectors[k ^ 1])
    return rows


def check_equal(ours: Sequence[Score], naive: Sequence[dict[str, float]]) -> None:
    """Raise ValueError unless both found the same."""
    of_judge = {name: [r for r in ours if r.judge == name] for name in ("clip", "q16", "nudenet")}
    for k, found in enumerate(naive):
        one = of_judge["clip"][k].scores | of_judge["q16"][k].scores
        same = len(of_judge["nudenet"][k].detections) == found["nudenet"]
        if not same or any(abs(one[n] - found[n]) > 1e-2 for n in found if n != "nudenet"):
            raise ValueError(f"image {k} is judged otherwise")


def interleaved(
    works: Sequence[Callable[[], object]], repeats: int
) -> tuple[list[float], list[object]]:
    """Median seconds and last result of several pieces of work, done in turn."""
    seconds = np.zeros((repeats, len(works)))
    results: list[object] = []
    for k in range(repeats):
        results = []
        for place, work in enumerate(works):
            start = time.monotonic()
            results.append(work())
            seconds[k, place] = time.monotonic() - start
    return np.median(seconds, axis=0).tolist(), results


def compare(
    case: str, sample: Sample, panel: Panel, detector: object, repeats: int
) -> dict[str, object]:
    """A row of milliseconds per image, all judges."""
    (ours, naive), results = interleaved(
        [lambda: judge(sample, panel), lambda: judge_naively(sample, panel, detector)], repeats
    )
    check_equal(*results)
    count = len(sample.images)
    return row(f"{case}, {count} images", 1e3 * ours / count, 1e3 * naive / count, "ms/image",
               repeats)  # fmt: skip


def compare_nudenet(count: int, repeats: int) -> list[dict[str, object]]:
    """Rows of NudeNet alone: ours against the library on one image at a time, and on batches."""
    from nudenet import NudeDetector

    pictures = [picture for _, picture in photographs(count)]
    arrays = [np.ascontiguousarray(np.asarray(p)[:, :, ::-1]) for p in pictures]
    ours, library = NudeNet(), NudeDetector()
    (mine, single, batched), results = interleaved(
        [lambda: ours.find(pictures), lambda: [library.detect(a) for a in arrays],
         lambda: library.detect_batch(arrays, 16)], repeats,
    )  # fmt: skip
    if results[1] != results[2] or [len(r) for r in results[0]] != [len(r) for r in results[1]]:
        raise ValueError("NudeNet finds otherwise in a batch")
    ms = 1e3 / count
    return [
        row("NudeNet, 512 pixels, by detect", mine * ms, single * ms, "ms/image", repeats),
        row("NudeNet, 512 pixels, by batches", mine * ms, batched * ms, "ms/image", repeats),
    ]


def main() -> None:
    """Command line entry point."""
    from nudenet import NudeDetector

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256, help="of the testbed; an even number")
    parser.add_argument("--photographs", type=int, default=16, help="an even number")
    parser.add_argument("--clip", default="ViT-L-14-quickgelu", help="an open_clip architecture")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    detector, rows = NudeDetector(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vectors = TESTBED / "q16" / "prompts.safetensors"
        small = load_panel(f"local-dir:{TESTBED / 'clip'}", None, vectors, BATCH)
        sample = make_sample(folder / "scenes", scenes(args.images))
        rows.append(compare("testbed", sample, small, detector, args.repeats))
        large = random_clip(folder / "clip", args.clip)
        sample = make_sample(folder / "photographs", photographs(args.photographs))
        rows.append(compare(args.clip, sample, large, detector, args.repeats))
    rows += compare_nudenet(64, args.repeats)
    publish("scoring", rows)


if __name__ == "__main__":
    main()
