"""The images that a model variant draws for the benchmark prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.benchmarks import block_reason
from pipeline.drawing.images import Draw, DrawOrder, draw_shards, order_image
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.variants import load_variant
from pipeline.errors import InputError
from pipeline.records import BenchmarkImage, BenchmarkPrompt, EncodedImage
from pipeline.seeds import content_id, seed_for
from pipeline.sources import ModelSource
from pipeline.storage import private_folder, read_rows, remove_except
from pipeline.workers import ALONE, Worker


def draw_benchmarks(
    folder: Path, prompts: Sequence[BenchmarkPrompt], draw: Draw, sampler: Sampler, *,
    variant: str, revision: str, base_seed: int, shard_rows: int, batch: int,
    redraws: bool = False, rewritten: Mapping[str, str] | None = None, worker: Worker = ALONE,
) -> int:  # fmt: skip
    """Draw every benchmark prompt with the seed and the settings that all variants share for it.

    A prompt's own seed, guidance and size go before ``sampler``'s. With ``redraws`` prompts that
    ask for it are also drawn from other seeds; with ``rewritten`` what that has in a prompt's place
    is drawn, from the prompt's seed. Raises InputError for a hard-blocked prompt, and for one that
    ``rewritten`` lacks.
    """
    plan: list[tuple[DrawOrder, BenchmarkPrompt, int]] = []
    known: set[str] = set()
    for row in prompts:
        text = _words(row, rewritten)
        if reason := block_reason(row) or block_reason(replace(row, prompt=text)):
            raise InputError(f"benchmark {row.benchmark} row {row.row} is hard-blocked ({reason}); "
                             "run `dvc repro prepare_benchmark`")  # fmt: skip
        own = own_sampler(sampler, row)
        for redraw in range(row.redraws + 1 if redraws else 1):
            seed = row.seed
            if seed is None or redraw:
                seed = seed_for(base_seed, "benchmark", row.prompt, redraw)
            order = order_image(text, seed, variant, revision, own)
            if order.image_id in known:  # benchmarks may share prompts; each has its own image
                again = content_id(order.image_id, row.benchmark, row.row, redraw)
                order = replace(order, image_id=again)
            known.add(order.image_id)
            plan.append((order, row, redraw))
    # prompts that bring settings of their own share batches with those that bring the same
    plan.sort(key=lambda p: (p[0].sampler.guidance, p[0].sampler.size, p[0].sampler.height or 0))

    def finish(index: int, order: DrawOrder, image: EncodedImage) -> BenchmarkImage:
        _, row, redraw = plan[index]
        return BenchmarkImage(
            order.image_id, row.benchmark, row.kind, row.row, redraw, row.prompt, row.category,
            row.concept, row.contrast, order.seed, variant, image,
        )  # fmt: skip

    orders = [order for order, _, _ in plan]
    return draw_shards(folder, orders, draw, finish, BenchmarkImage, shard_rows, batch, worker)


def _words(row: BenchmarkPrompt, rewritten: Mapping[str, str] | None) -> str:
    if rewritten is None:
        return row.prompt
    if row.prompt not in rewritten:
        raise InputError(f"benchmark {row.benchmark} row {row.row} was not rewritten; run `dvc "
                         "repro rewrite_prompts`")  # fmt: skip
    return rewritten[row.prompt]


def own_sampler(sampler: Sampler, row: BenchmarkPrompt) -> Sampler:
    """The settings with those that the prompt brings."""
    width = row.width or sampler.size
    height = row.height or sampler.height or sampler.size
    return replace(
        sampler, guidance=sampler.guidance if row.guidance is None else row.guidance,
        size=width, height=None if height == width else height,
    )  # fmt: skip


def scale_folder(folder: Path, scale: float) -> Path:
    """Where the images of a scale lie."""
    return folder / f"scale-{scale:g}"


def keep_scales(folder: Path, scales: Sequence[float]) -> Path:
    """The private folder of a LoRA's images, without those of scales that are not asked for."""
    remove_except(private_folder(folder), [scale_folder(folder, scale) for scale in scales])
    return folder


def draw_scale(
    folder: Path, prompts: Sequence[BenchmarkPrompt], source: ModelSource, lora: Path,
    sampler: Sampler, scale: float, *, variant: str, base_seed: int, shard_rows: int, batch: int,
) -> list[BenchmarkImage]:  # fmt: skip
    """The benchmark images of a LoRA at a scale, drawn into a folder of that scale's."""
    pipe, revision = load_variant(source, "lora", lora, scale=scale, precision=sampler.precision)
    here = scale_folder(folder, scale)
    draw_benchmarks(
        here, prompts, partial(draw_images, pipe), sampler, variant=variant, revision=revision,
        base_seed=base_seed, shard_rows=shard_rows, batch=batch,
    )  # fmt: skip
    return read_rows(here, BenchmarkImage)
