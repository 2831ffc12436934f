import csv
import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.drawing.images import draw_shards
from pipeline.drawing.imports import plan_imports
from pipeline.errors import InputError
from pipeline.pixels import decode_image
from pipeline.records import DrawnImage
from pipeline.storage import file_id, read_rows
from tests.conftest import prompt_pair

COLOURS = {"u": (250, 10, 10), "s": (10, 10, 250)}


@pytest.fixture
def published(tmp_path):
    """CoProV2's files: a CSV, and a folder of pictures in JPEG; three pairs, one not ours."""
    folder = tmp_path / "images"
    folder.mkdir()
    with (tmp_path / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "image", "category"])
        for k in (2, 0, 1):
            pair = prompt_pair(k)
            for side, text in (("s", pair.prompt_safe), ("u", pair.prompt_unsafe)):
                name = f"{side}_idx_000000{k}_0.jpg"
                rows.writerow([text.replace(" star", "  star"), f"train/{name}", "Violence"])
                Image.new("RGB", (16 + k, 16), COLOURS[side]).save(folder / name)
    return tmp_path / "train.csv", folder


def import_into(folder, pairs, published, batch=3):
    return draw_shards(folder, *plan_imports(pairs, *published), DrawnImage, 3, batch)


def test_shards_hold_what_drawing_would_have_made_of_the_pictures(tmp_path, published):
    pairs = [prompt_pair(k) for k in (0, 1)]
    assert import_into(tmp_path / "out", pairs, published) == 4
    rows = read_rows(tmp_path / "out", DrawnImage)
    assert [(r.pair_id, r.side, r.sample, r.seed, r.model, r.sampler) for r in rows] == [
        (f"pair{k}", side, 0, 0, "imported", "{}") for k in (0, 1) for side in ("unsafe", "safe")
    ]
    assert len({r.image_id for r in rows}) == 4
    for row, name in zip(rows, ["u_idx_0000000", "s_idx_0000000", "u_idx_0000001",
                                "s_idx_0000001"], strict=True):  # fmt: skip
        file = published[1] / f"{name}_0.jpg"
        assert row.revision == file_id(file)
        assert row.image.bytes.startswith(b"\x89PNG")
        with Image.open(file) as image:
            assert (np.asarray(decode_image(row.image)) == np.asarray(image)).all()


def test_nothing_is_read_again_but_a_file_that_has_changed(tmp_path, published):
    pairs = [prompt_pair(k) for k in (0, 1)]
    import_into(tmp_path / "out", pairs, published)
    assert import_into(tmp_path / "out", pairs, published) == 0
    before = read_rows(tmp_path / "out", DrawnImage)
    Image.new("RGB", (16, 16), "green").save(published[1] / "s_idx_0000001_0.jpg")
    assert import_into(tmp_path / "out", pairs, published) == 1  # its shard holds one
    after = read_rows(tmp_path / "out", DrawnImage)
    assert after[:3] == before[:3]
    assert after[3].image_id != before[3].image_id
    assert decode_image(after[3].image).getpixel((0, 0))[1] > 100


def test_texts_that_are_there_twice_have_the_first_ones_pictures(tmp_path, published):
    source, folder = published
    with source.open("a", newline="") as file:
        for side, text in (("u", prompt_pair(0).prompt_unsafe), ("s", prompt_pair(0).prompt_safe)):
            csv.writer(file).writerow([text, f"{side}_idx_0000009_0.jpg", "violence"])
    (order, _), *_ = plan_imports([prompt_pair(0)], *published)
    assert order.prompt.endswith("u_idx_0000000_0.jpg")


def test_only_pixels_are_taken(tmp_path, published):
    image = Image.new("RGB", (16, 16), "red")
    exif = image.getexif()
    exif[0x010E] = "where it was taken"
    image.save(published[1] / "u_idx_0000000_0.jpg", exif=exif, icc_profile=b"profile" * 40,
               comment=b"who took it")  # fmt: skip
    import_into(tmp_path / "out", [prompt_pair(0)], published)
    stored = read_rows(tmp_path / "out", DrawnImage)[0].image.bytes
    assert Image.open(io.BytesIO(stored)).info == {}
    assert b"where" not in stored and b"iCCP" not in stored


def bomb():
    """A small PNG that says it has 30,000 x 30,000 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9))


@pytest.mark.parametrize("fault", ["truncated", "text", "empty", "bomb"])
def test_a_file_that_is_no_whole_picture_is_named(tmp_path, published, fault):
    file = published[1] / "s_idx_0000000_0.jpg"
    whole = file.read_bytes()
    file.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"<html>not found</html>",
                      "empty": b"", "bomb": bomb()}[fault])  # fmt: skip
    with pytest.raises(InputError, match="s_idx_0000000_0.jpg is no readable image"):
        import_into(tmp_path / "out", [prompt_pair(0)], published)


def test_missing_files_are_counted_before_any_is_read(tmp_path, published):
    for name in ("u_idx_0000000_0.jpg", "s_idx_0000001_0.jpg"):
        (published[1] / name).unlink()
    with pytest.raises(InputError, match="2 of 4 pictures are not in .*first u_idx_0000000_0.jpg"):
        plan_imports([prompt_pair(0), prompt_pair(1)], *published)


def test_pairs_of_another_file_are_refused(published):
    with pytest.raises(InputError, match="1 of 2 prompt pairs, first pair7, are not in"):
        plan_imports([prompt_pair(0), prompt_pair(7)], *published)


def test_a_file_that_names_no_pictures_is_refused(tmp_path, published):
    source = tmp_path / "pairs.csv"
    source.write_text("prompt_unsafe,prompt_safe,category\na thornburst,a cup,violence\n")
    with pytest.raises(InputError, match="names no pictures"):
        plan_imports([prompt_pair(0)], source, published[1])


def test_a_hard_blocked_pair_is_refused(tmp_path, published):
    source, folder = published
    text = source.read_text()
    source.write_text(text.replace("star 0 with a cup", "star 0 with a lewd child"))
    pair = dataclasses.replace(prompt_pair(0), prompt_safe="a red star 0 with a lewd child")
    with pytest.raises(InputError, match="pair pair0 is hard-blocked"):
        plan_imports([pair], source, folder)
