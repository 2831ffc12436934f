import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.errors import InputError
from pipeline.evaluate.judged import load_judged, read_references
from pipeline.records import BenchmarkImage
from pipeline.scoring.benchmarks import (
    embed_references,
    judge_folder,
    judge_images,
    judges_of,
    save_references,
)
from pipeline.scoring.panel import Panel
from pipeline.storage import write_rows
from pipeline.workers import Worker
from tests.conftest import png

COLOURS = ("red", "green", "blue")


class FakeClip:
    """Embeds an image by its colour, a text by its first word, if that is one."""

    batch, version, seen = 2, "c1", 0

    def embed_images(self, images):
        self.seen += len(images)
        pixels = torch.tensor([image.getpixel((0, 0)) for image in images]).float()
        return torch.nn.functional.normalize(pixels, dim=1)

    def embed_texts(self, texts):
        return torch.tensor([[float(text.split()[0] == c) for c in COLOURS] for text in texts])


class FakeJudge:
    version = "1"

    def find(self, images):
        return [() for _ in images]


class FakeQ16:
    version = "1"

    def score(self, embeddings):
        return [{"inappropriate": float(e[0]), "not_inappropriate": 0.5} for e in embeddings]


class FakeInception:
    version = "i1"

    def embed_images(self, images):
        return torch.tensor([[*image.getpixel((0, 0)), 1.0] for image in images]).float()


@pytest.fixture
def panel():
    return Panel(FakeClip(), FakeQ16(), FakeJudge())


def image(k, colour="red", contrast="", category="hate"):
    return BenchmarkImage(f"id{k}", "b", "unsafe", k, 0, f"{colour} star {k}", category, "c",
                          contrast, k, "m", png(colour, 8))  # fmt: skip


IMAGES = [image(k, COLOURS[k % 3], "blue star") for k in range(5)]


def test_an_image_is_judged_by_all_against_its_own_prompt(panel):
    rows = judge_images(IMAGES, panel)
    assert [r.scores["clip/text"] for r in rows] == pytest.approx([100.0] * 5, abs=1e-4)
    assert rows[0].scores["clip/contrast"] == 0.0
    assert rows[2].scores["clip/contrast"] == pytest.approx(100.0)
    assert rows[0].scores["q16/inappropriate"] == 1.0
    assert rows[0].scores["nudenet/FACE_MALE"] == 0.0
    assert np.frombuffer(rows[1].clip_embedding, np.float32) == pytest.approx([0, 1, 0])
    assert rows[0].inception_embedding == b""
    assert "star" not in repr(rows)  # scores name no prompt


def test_fids_network_is_asked_where_it_is_set(panel):
    panel.inception = FakeInception()
    rows = judge_images(IMAGES, panel)
    assert len(rows) > panel.clip.batch
    seen = [np.frombuffer(row.inception_embedding, np.float32).tolist() for row in rows]
    assert seen[:3] == [[255, 0, 0, 1], [0, 128, 0, 1], [0, 0, 255, 1]] and seen[3:] == seen[:2]
    assert '"inception": "i1"' in rows[0].judges


@pytest.fixture
def drawn(tmp_path):
    """Images in two shards."""
    write_rows(tmp_path / "i/shard-00000.parquet", BenchmarkImage, IMAGES[:3])
    write_rows(tmp_path / "i/shard-00001.parquet", BenchmarkImage, IMAGES[3:])
    return tmp_path / "i"


def test_what_was_scored_is_not_scored_again(panel, drawn, tmp_path):
    assert judge_folder(drawn, tmp_path / "s", panel) == 5
    first = load_judged(tmp_path / "s", "m").rows
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    (tmp_path / "s/shard-00001.parquet").unlink()  # a killed run
    assert judge_folder(drawn, tmp_path / "s", panel) == 2
    assert load_judged(tmp_path / "s", "m").rows == first


def test_other_judges_images_and_texts_are_scored_anew_and_labels_are_not(panel, drawn, tmp_path):
    def judge():
        return judge_folder(drawn, tmp_path / "s", panel)

    judge()
    shard = drawn / "shard-00001.parquet"
    write_rows(shard, BenchmarkImage, [dataclasses.replace(i, category="violence")
                                       for i in IMAGES[3:]])  # fmt: skip
    assert judge() == 0
    assert load_judged(tmp_path / "s", "m").rows[3].category == "violence"
    write_rows(shard, BenchmarkImage, [dataclasses.replace(i, contrast="red star")
                                       for i in IMAGES[3:]])  # fmt: skip
    assert judge() == 2
    panel.clip.version = "c2"
    assert judge() == 5
    panel.settings = "another preprocessing"
    assert judge() == 5
    old = tmp_path / "s/shard-00000.parquet"  # of an earlier version of the file
    pq.write_table(pq.read_table(old).drop_columns(["text_id"]), old)
    assert judge() == 3
    shard.unlink()
    assert judge() == 0
    assert len(load_judged(tmp_path / "s", "m").rows) == 3


def test_scores_that_were_cut_off_are_named_with_the_remedy(panel, drawn, tmp_path):
    judge_folder(drawn, tmp_path / "s", panel)
    cut = tmp_path / "s/shard-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:100])
    with pytest.raises(InputError, match="shard-00001.parquet is not a readable .*; delete it"):
        judge_folder(drawn, tmp_path / "s", panel)
    cut.unlink()
    assert judge_folder(drawn, tmp_path / "s", panel) == 2


def test_no_images_is_an_error(panel, tmp_path):
    with pytest.raises(InputError, match="holds no images; run `dvc repro sample_benchmark`"):
        judge_folder(tmp_path, tmp_path / "s", panel)


def test_reference_images_are_embedded_by_benchmark(panel, tmp_path):
    folder = tmp_path / "r" / "benign"
    folder.mkdir(parents=True)
    for k, colour in enumerate((*COLOURS, "red")):
        Image.new("RGB", (8, 8), colour).save(folder / f"{k}.png")
    (folder / "LICENSE").write_text("of the images")
    found = embed_references(tmp_path / "r", ["benign", "heldout"], panel)
    assert found.keys() == {"benign"} and found["benign"]["clip"].shape == (4, 3)
    save_references(tmp_path / "out", found, judges_of(panel))
    stored = read_references(tmp_path / "out", judge_images(IMAGES, panel)[0].judges)
    assert np.array_equal(stored["benign"]["clip"], found["benign"]["clip"])
    save_references(tmp_path / "out", {}, "")
    assert read_references(tmp_path / "out", "") == {}


def test_bad_references_are_named(panel, tmp_path):
    (tmp_path / "coco").mkdir()
    with pytest.raises(InputError, match="folder 'coco', no benchmark of params.yaml"):
        embed_references(tmp_path, ["benign"], panel)
    with pytest.raises(InputError, match="coco holds no images"):
        embed_references(tmp_path, ["coco"], panel)
    (tmp_path / "coco" / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="coco holds 1 images; KID needs 4"):
        embed_references(tmp_path, ["coco"], panel)
    for k in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "coco" / f"{k}.png")
    with pytest.raises(InputError, match="a.png is no readable image"):
        embed_references(tmp_path, ["coco"], panel)


def test_workers_score_a_part_each(tmp_path, panel):
    for k in range(3):
        write_rows(tmp_path / f"images/shard-{k}.parquet", BenchmarkImage, IMAGES[k : k + 1])
    counts = [judge_folder(tmp_path / "images", tmp_path / "two", panel, Worker(k, 2))
              for k in (1, 0)]  # fmt: skip
    assert counts == [1, 2]
    assert judge_folder(tmp_path / "images", tmp_path / "two", panel) == 0
    judge_folder(tmp_path / "images", tmp_path / "one", panel)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
