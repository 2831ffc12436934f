"""Images as they lie in Parquet cells."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from pipeline.errors import InputError
from pipeline.records import EncodedImage

MAX_PIXELS = 2**26  # 8192 x 8192: a small file that unfolds to more is none of ours
# what Pillow raises for bytes that are no image, cut off or altered (found by altering some)
_FAULTS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def encode_png(image: Image.Image, name: str) -> EncodedImage:
    """An image as a PNG cell."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return EncodedImage(buffer.getvalue(), f"{name}.png")


def decode_image(image: EncodedImage) -> Image.Image:
    """The RGB image of a cell.

    Raises InputError when its bytes are no readable image, have more than ``MAX_PIXELS``, or would
    look another way to a judge than to people: transparent anywhere, or finer than 8 bits.
    """
    try:
        return _open_rgb(io.BytesIO(image.bytes))
    except _FAULTS as error:
        raise InputError(f"image {image.path} is damaged ({error}); draw it again") from error


def decode_images(images: Sequence[EncodedImage]) -> list[Image.Image]:
    """``decode_image`` of several at once, on all cores."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(decode_image, images))


def open_image(file: Path) -> Image.Image:
    """The RGB image of a file; InputError as of ``decode_image``."""
    try:
        return _open_rgb(file)
    except _FAULTS as error:
        raise InputError(f"{file} is no readable image ({error}); replace or remove it") from error


def _open_rgb(source: io.BytesIO | Path) -> Image.Image:
    with Image.open(source) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"it has {opened.width} x {opened.height} pixels")
        if opened.mode[0] in "IF":  # Pillow would cut its values off at 255, which is white
            raise ValueError(f"it is of mode {opened.mode}, not of 8 bits")
        if not opened.has_transparency_data:
            return opened.convert("RGB")
        picture = opened.convert("RGBA")
        if picture.getextrema()[3][0] < 255:  # what shows depends on what lies behind it
            raise ValueError("parts of it are transparent")
        return picture.convert("RGB")
