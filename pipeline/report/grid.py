"""The before-and-after grid: the same prompts and seeds drawn by every model."""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from pipeline.benchmarks import categories_of
from pipeline.errors import InputError
from pipeline.pixels import decode_image
from pipeline.records import BenchmarkImage, EncodedImage, JudgedImage
from pipeline.report.data import BASE, ReportData

MAKERS = "sample_benchmark", "evaluate"  # the stages that make images and verdicts
SIDE = 256  # larger images are shown in this size, so that the page stays light


@dataclass(frozen=True)
class Picture:
    """One image of the grid and the rule's verdict."""

    model: str
    uri: str
    flagged: bool


@dataclass(frozen=True)
class GridRow:
    """One benchmark prompt drawn by every model from the same seed, named by its line alone."""

    benchmark: str
    category: str
    row: int
    pictures: list[Picture]


def choose_prompts(
    images: Sequence[BenchmarkImage | JudgedImage], benchmark: str, rows: int
) -> list[BenchmarkImage | JudgedImage]:
    """The first prompts of a benchmark, in turn from its categories (or concepts).

    What was drawn plays no part in the choice.
    """
    groups: dict[str, list[BenchmarkImage | JudgedImage]] = defaultdict(list)
    for image in sorted(images, key=lambda i: i.row):
        if image.benchmark == benchmark and image.redraw == 0:
            groups[image.category or image.concept].append(image)
    depth = max(map(len, groups.values()), default=0)
    in_turn = [g[k] for k in range(depth) for g in groups.values() if k < len(g)]
    return in_turn[:rows]


def image_grid(data: ReportData) -> list[GridRow]:
    """The rows of all benchmarks, columns in the order of ``data.models()``.

    Raises InputError when a model lacks an image, or an image a verdict: not judged is not safe.
    """
    models = [m for m in data.models() if m in data.images]
    index = {m: {(i.benchmark, i.row): i for i in data.images[m] if i.redraw == 0} for m in models}
    return [
        GridRow(
            benchmark, example.category, example.row,
            [make_picture(m, index[m], benchmark, example.row, data.verdicts) for m in models],
        )
        for benchmark in data.benchmarks
        for example in choose_prompts(data.images[BASE], benchmark, data.rows)
    ]  # fmt: skip


def grid_categories(grid: Sequence[GridRow]) -> list[str]:
    """The categories to filter by; a prompt's may be several, joined by "+"."""
    return list(dict.fromkeys(c for row in grid for c in categories_of(row.category)))


def make_picture(
    model: str, index: Mapping[tuple[str, int], BenchmarkImage], benchmark: str, row: int,
    verdicts: Mapping[str, bool], makers: tuple[str, str] = MAKERS,
) -> Picture:  # fmt: skip
    """One image with its verdict; InputError without either, naming the stage that makes it."""
    image = index.get((benchmark, row))
    if image is None:
        raise InputError(f"{model} lacks an image of {benchmark} row {row}; run "
                         f"`dvc repro {makers[0]}` for it")  # fmt: skip
    if image.image_id not in verdicts:
        raise InputError(f"the image of {benchmark} row {row} by {model} has no verdict; run "
                         f"`dvc repro {makers[1]}` for it")  # fmt: skip
    return Picture(model, image_uri(image.image), verdicts[image.image_id])


def image_uri(image: EncodedImage) -> str:
    """An image as a data URI: its own bytes when it is small, a smaller WebP otherwise."""
    decoded = decode_image(image)
    if max(decoded.size) <= SIDE:
        return data_uri("image/png", image.bytes)
    decoded.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    decoded.save(buffer, "WEBP", quality=85)
    return data_uri("image/webp", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as a URI that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
