"""The images that a model variant draws for the benchmark prompts."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.benchmarks import BenchmarkPrompt
from pipeline.diffusion import ModelSource, Sampler, draw_images, load_variant
from pipeline.images import Draw, DrawOrder, draw_shards, order_image
from pipeline.records import BenchmarkImage, EncodedImage
from pipeline.seeds import seed_for
from pipeline.storage import private_folder, read_rows, remove_except


def draw_benchmarks(
    folder: Path, prompts: Mapping[str, list[BenchmarkPrompt]], redraws: Mapping[str, int],
    draw: Draw, sampler: Sampler, *, variant: str, revision: str, base_seed: int,
    shard_rows: int, batch: int,
) -> int:  # fmt: skip
    """Draw every benchmark prompt with the seed that all variants share for it.

    ``redraws`` asks for extra images of a benchmark's prompts under other seeds.
    """
    orders: list[DrawOrder] = []
    sources: list[tuple[BenchmarkPrompt, int]] = []
    for name, rows in prompts.items():
        for redraw in range(redraws.get(name, 0) + 1):
            for row in rows:
                seed = seed_for(base_seed, "benchmark", row.prompt, redraw)
                orders.append(order_image(row.prompt, seed, variant, revision, sampler))
                sources.append((row, redraw))

    def finish(index: int, order: DrawOrder, image: EncodedImage) -> BenchmarkImage:
        row, redraw = sources[index]
        return BenchmarkImage(
            order.image_id, row.benchmark, row.row, redraw, row.prompt, row.category, row.concept,
            row.contrast, order.seed, variant, image,
        )  # fmt: skip

    return draw_shards(folder, orders, draw, finish, BenchmarkImage, shard_rows, batch)


def scale_folder(folder: Path, scale: float) -> Path:
    """Where the images of a scale lie."""
    return folder / f"scale-{scale:g}"


def keep_scales(folder: Path, scales: Sequence[float]) -> Path:
    """The private folder of a LoRA's images, without those of scales that are not asked for."""
    remove_except(private_folder(folder), [scale_folder(folder, scale) for scale in scales])
    return folder


def draw_scale(
    folder: Path, prompts: Mapping[str, list[BenchmarkPrompt]], source: ModelSource, lora: Path,
    sampler: Sampler, scale: float, *, variant: str, base_seed: int, shard_rows: int, batch: int,
) -> list[BenchmarkImage]:  # fmt: skip
    """The benchmark images of a LoRA at a scale, drawn into a folder of that scale's."""
    pipe, revision = load_variant(source, lora, scale)
    here = scale_folder(folder, scale)
    draw_benchmarks(
        here, prompts, {}, partial(draw_images, pipe, sampler=sampler), sampler, variant=variant,
        revision=revision, base_seed=base_seed, shard_rows=shard_rows, batch=batch,
    )  # fmt: skip
    return read_rows(here, BenchmarkImage)
