"""Reads the pictures that a report shows."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from pipeline.pixels import encode_png
from pipeline.records import BenchmarkImage, EncodedImage
from pipeline.storage import read_rows


def read_images(
    folder: Path, chosen: Collection[tuple[str, int]], blocked: Collection[str]
) -> list[BenchmarkImage]:
    """The images of some prompts' common seeds, one shard in memory at a time.

    In place of a ``blocked`` one stands a picture that says so.
    """
    return [
        replace(image, image=_withheld(image)) if image.image_id in blocked else image
        for file in sorted(folder.glob("*.parquet"))
        for image in read_rows(file, BenchmarkImage)
        if image.redraw == 0 and (image.benchmark, image.row) in chosen
    ]  # fmt: skip


def _withheld(image: BenchmarkImage) -> EncodedImage:
    side = 128
    picture = Image.new("RGB", (side, side), "#808080")
    ImageDraw.Draw(picture).text((side / 2, side / 2), "withheld", "white", anchor="mm")
    return encode_png(picture, image.image_id)
