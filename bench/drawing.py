"""What drawing costs: ``python -m bench.drawing``.

Images per second of batches, drawn into shards as the stage draws them, against the loop of the
published code, one prompt after another; and how far the pixels of the one are from those of the
other, and of another batch size, since float sums differ in the last bit with the batch.
"""

import argparse
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.table import publish, row
from pipeline.benign_prompts import read_benign_prompts
from pipeline.diffusion import UNCHECKED
from pipeline.drawing.images import DrawOrder, draw_shards, order_image
from pipeline.drawing.pipelines import draw_images, load_pipeline
from pipeline.drawing.sampler import Sampler
from pipeline.params import load_params
from pipeline.pixels import decode_image
from pipeline.records import StoredImage
from pipeline.seeds import seed_for
from pipeline.sources import ModelSource
from pipeline.storage import read_rows


def one_by_one(pipe, orders: list[DrawOrder], folder: Path) -> np.ndarray:
    """The published loop: a call and a file for every prompt."""
    pictures = []
    for order in orders:
        (image,) = draw_images(pipe, [order.prompt], [order.seed], order.sampler)
        image.save(folder / f"{order.image_id}.png")
        pictures.append(np.asarray(image))
    return np.stack(pictures).astype(int)


def in_shards(pipe, orders: list[DrawOrder], folder: Path, batch: int) -> np.ndarray:
    """As the stage draws."""

    def stored(_, order: DrawOrder, image) -> StoredImage:
        return StoredImage(order.image_id, image)

    draw_shards(folder, orders, partial(draw_images, pipe), stored, StoredImage, batch, batch)
    rows = read_rows(folder, StoredImage)
    return np.stack([np.asarray(decode_image(r.image)) for r in rows]).astype(int)


def compare(pipe, orders: list[DrawOrder], batch: int, repeats: int):
    """Seconds per way, interleaved, and the pictures of each way."""
    ways = {
        "ours": lambda folder: in_shards(pipe, orders, folder, batch),
        "half": lambda folder: in_shards(pipe, orders, folder, batch // 2),
        "naive": lambda folder: one_by_one(pipe, orders, folder),
    }
    taken, pictures = {way: [] for way in ways}, {}
    for _ in range(repeats):
        for way, work in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.monotonic()
                pictures[way] = work(Path(folder))
                taken[way].append(time.monotonic() - start)
    return {way: float(np.median(times)) for way, times in taken.items()}, pictures


def measure(case: str, pipe, orders: list[DrawOrder], batch: int, repeats: int) -> list[dict]:
    """The rows of one model."""
    in_shards(pipe, orders[:batch], Path(tempfile.mkdtemp()), batch)  # warm up
    seconds, pictures = compare(pipe, orders, batch, repeats)
    n = len(orders)
    rows = [row(f"{case}: batches of {batch}", n / seconds["ours"], n / seconds["naive"],
                "images/s", n, higher_is_better=True)]  # fmt: skip
    for other, name in (("naive", "1"), ("half", str(batch // 2))):
        apart = abs(pictures["ours"] - pictures[other])
        largest = float(apart.max())
        rows.append(row(f"{case}: largest pixel apart, {name}", largest, None, "of 255", n))
        share = 1000 * float((apart > 0).mean())
        rows.append(row(f"{case}: values apart, {name}", share, None, "of 1000", n))
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else (
        1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # fmt: skip
    return [*rows, row(f"{case}: peak memory", peak / 2**30, None, "GiB", 1)]


def sd15_pipeline():
    """A random pipeline of Stable Diffusion 1.5's shape, in half precision on the GPU."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    from bench.models import sd15_unet

    own = load_pipeline(ModelSource(**load_params().base_model.weights))
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                          num_attention_heads=12, vocab_size=len(own.tokenizer),
                          max_position_embeddings=77, bos_token_id=own.tokenizer.bos_token_id,
                          eos_token_id=own.tokenizer.eos_token_id)  # fmt: skip
    own.tokenizer.model_max_length = 77
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae, CLIPTextModel(text), own.tokenizer, sd15_unet(), own.scheduler,
        feature_extractor=None, **UNCHECKED,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda", torch.float16)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    params = load_params()
    source, i = ModelSource(**params.base_model.weights), params.images
    prompts = (read_benign_prompts(params.latents.benign_prompts) * args.images)[: args.images]

    def orders(sampler: Sampler) -> list[DrawOrder]:
        return [order_image(p, seed_for(0, p, k), "bench", "", sampler)
                for k, p in enumerate(prompts)]  # fmt: skip

    rows = measure("testbed", load_pipeline(source), orders(Sampler(**i.sampler)), i.batch,
                   args.repeats)  # fmt: skip
    if torch.cuda.is_available():
        large = Sampler("dpm++", 20, 7.5, 512)
        rows += measure("SD1.5's shape", sd15_pipeline(), orders(large), 16, args.repeats)
    publish("drawing", rows)


if __name__ == "__main__":
    main()
