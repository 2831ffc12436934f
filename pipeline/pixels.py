"""Images as they lie in Parquet cells."""

import io
from pathlib import Path

from PIL import Image

from pipeline.errors import InputError
from pipeline.records import EncodedImage


def encode_png(image: Image.Image, name: str) -> EncodedImage:
    """An image as a PNG cell."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return EncodedImage(buffer.getvalue(), f"{name}.png")


def decode_image(image: EncodedImage) -> Image.Image:
    """The RGB image of a cell; InputError when its bytes are no readable image."""
    try:
        with Image.open(io.BytesIO(image.bytes)) as opened:
            return opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {image.path} is damaged ({error}); draw it again") from error


def open_image(file: Path) -> Image.Image:
    """The RGB image of a file; InputError when it is no readable image."""
    try:
        with Image.open(file) as opened:
            return opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file} is no readable image ({error}); replace or remove it") from error
