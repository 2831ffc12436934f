import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.pixels import MAX_PIXELS, decode_image, decode_images, encode_png, open_image
from pipeline.records import EncodedImage
from tests.conftest import png

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
OPAQUE = NOISE | np.array([0, 0, 0, 255], np.uint8)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return EncodedImage(buffer.getvalue(), "x")


def header(width, height):
    """A PNG of a few bytes that claims so many pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    pixels = struct.pack(">I", 100) + b"IDAT" + bytes(100)
    return EncodedImage(start + struct.pack(">I", zlib.crc32(chunk)) + pixels, "x")


PICTURE = encoded(Image.fromarray(OPAQUE).convert("RGB"))
PHOTO = encoded(Image.fromarray(OPAQUE).convert("RGB"), "JPEG")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pictures_of_any_form_are_seen_in_rgb(mode):
    picture = Image.fromarray(OPAQUE).convert(mode)
    decoded = decode_image(encoded(picture, "TIFF" if mode == "CMYK" else "PNG"))
    assert decoded.mode == "RGB"
    assert np.array_equal(decoded, picture.convert("RGB"))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (EncodedImage(b"", "x"), "cannot identify"),
        (EncodedImage(b"not an image", "x"), "cannot identify"),
        (EncodedImage(PICTURE.bytes[:-30], "x"), "truncated"),
        (EncodedImage(PHOTO.bytes[:-40], "x"), "truncated"),
        (header(2**13, 2**13 + 1), "8192 x 8193 pixels"),
        (header(2**20, 2**20), "decompression bomb"),
        (encoded(Image.fromarray(NOISE)), "parts of it are transparent"),
        (encoded(Image.new("P", (8, 8)), transparency=0), "parts of it are transparent"),
        (encoded(Image.new("L", (8, 8), 7), transparency=7), "parts of it are transparent"),
        (encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)), "mode I;16"),
        (encoded(Image.new("F", (8, 8), 0.5), "TIFF"), "mode F"),
    ],
)
def test_what_cannot_be_seen_as_it_is_raises(image, reason):
    with pytest.raises(InputError, match=f"image x is damaged .*{reason}.*; draw it again"):
        decode_image(image)
    assert MAX_PIXELS == 2**26


@pytest.mark.parametrize("image", [PICTURE, PHOTO], ids=["png", "jpeg"])
def test_altered_bytes_are_an_image_or_an_error_of_ours(image):
    rng = random.Random(0)
    failed = 0
    for _ in range(300):
        data = bytearray(image.bytes)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode_image(EncodedImage(bytes(data), "x"))
        except InputError:
            failed += 1
    assert failed > 20


def test_several_come_in_their_order_and_the_bad_one_is_named():
    images = [png("red"), PICTURE, png("blue")]
    assert [np.asarray(i).tolist() for i in decode_images(images)] == [
        np.asarray(decode_image(i)).tolist() for i in images
    ]
    with pytest.raises(InputError, match="image y is damaged"):
        decode_images([*images, EncodedImage(b"", "y")])


def test_a_drawn_image_comes_back_as_it_was():
    picture = Image.fromarray(OPAQUE).convert("RGB")
    cell = encode_png(picture, "id")
    assert cell.path == "id.png"
    assert np.array_equal(decode_image(cell), picture)


def test_a_bad_file_is_named(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(PICTURE.bytes)
    assert np.array_equal(open_image(file), decode_image(PICTURE))
    file.write_bytes(PICTURE.bytes[:-30])
    with pytest.raises(InputError, match=r"a\.png is no readable image .*; replace or remove it"):
        open_image(file)
