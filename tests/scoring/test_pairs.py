import dataclasses
import os
import shutil
import time

import numpy as np
import pytest
import torch
import yaml

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.params import load_params
from pipeline.pixels import encode_png
from pipeline.records import Detection, DrawnImage, EncodedImage, PromptPair, Score
from pipeline.scoring.pairs import look_at_pairs, score_pairs
from pipeline.scoring.panel import Panel, load_panel
from pipeline.storage import read_rows, write_rows
from pipeline.testbed import world
from pipeline.workers import Worker
from tests.conftest import png, prompt_pair
from tests.fakes import FakeNudeNet, FakeQ16
from tests.imports import ROOT
from tests.started import Started

FACE = Detection("FACE_MALE", 0.5, 1, 2, 3, 4)


class FakeClip:
    """Embeds red images and texts that name the mark as (1, 0), grey as (0, 1), else (0.6, 0.8)."""

    version, batch, seen = "clip@1", 2, 0

    def embed_images(self, images):
        assert len(images) <= self.batch
        self.seen += len(images)
        known = {(255, 0, 0): [1.0, 0.0], (128, 128, 128): [0.0, 1.0]}
        return torch.tensor([known.get(i.getpixel((0, 0)), [0.6, 0.8]) for i in images])

    def embed_texts(self, texts):
        return torch.tensor([[1.0, 0.0] if "thornburst" in t else [0.6, 0.8] for t in texts])


@pytest.fixture
def panel():
    return Panel(FakeClip(), FakeQ16(), FakeNudeNet(FACE))


def drawn(k, side, colour, sample=0):
    image = dataclasses.replace(png(colour), path=f"img{k}{side}{sample}.png")
    return DrawnImage(f"img{k}{side}{sample}", f"pair{k}", side, sample, 0, "m", "r", "{}", image)


IMAGES = [
    drawn(0, "unsafe", "red"), drawn(0, "safe", "blue"),
    drawn(0, "unsafe", "red", 1), drawn(0, "safe", "grey", 1),
    drawn(1, "unsafe", "blue"), drawn(1, "safe", "blue"),
    drawn(1, "unsafe", "red", 1), drawn(1, "safe", "red", 1),
]  # fmt: skip
PAIRS = [prompt_pair(0), prompt_pair(1)]


@pytest.fixture
def store(tmp_path):
    """Writes images in shards of so many rows; returns their folder."""

    def write(images=IMAGES, shard_rows=3):
        shutil.rmtree(tmp_path / "images", ignore_errors=True)
        for k in range(0, len(images), shard_rows):
            file = tmp_path / "images" / f"shard-{k:05d}.parquet"
            write_rows(file, DrawnImage, images[k : k + shard_rows])
        return tmp_path / "images"

    return write


@pytest.fixture
def score(store, panel, tmp_path):
    """Scores as the stage does; returns the rows."""

    def run(images=IMAGES, shard_rows=3, pairs=PAIRS):
        folder = store(images, shard_rows)
        rows = score_pairs(pairs, folder, panel, tmp_path / "unfinished")
        write_rows(tmp_path / "scores.parquet", Score, rows)
        return read_rows(tmp_path / "scores.parquet", Score)

    return run


def test_every_judge_scores_every_image_once_in_order(score):
    rows = score()
    assert [(r.image_id, r.judge) for r in rows] == [
        (image.image_id, judge) for image in IMAGES for judge in ("age", "clip", "nudenet", "q16")
    ]
    assert {r.judge: r.judge_version for r in rows}["q16"] == "q16@1@clip@1"
    assert {r.judge: r.judge_version for r in rows}["age"].endswith("@clip@1")


def test_an_image_is_compared_with_the_other_side_of_its_draw(score):
    """In shards of three, sides lie in different files."""
    clip = {r.image_id: r.scores for r in score() if r.judge == "clip"}
    text = {"img0unsafe0": 100, "img0safe0": 100, "img0unsafe1": 100, "img0safe1": 80,
            "img1unsafe0": 60, "img1safe0": 100, "img1unsafe1": 100, "img1safe1": 60}  # fmt: skip
    similarity = {"pair0": {0: 0.6, 1: 0.0}, "pair1": {0: 1.0, 1: 1.0}}
    for image in IMAGES:
        assert clip[image.image_id] == pytest.approx({
            "text": text[image.image_id], "prompts": 0.6,
            "similarity": similarity[image.pair_id][image.sample],
        })  # fmt: skip


def test_what_was_detected_is_kept_with_nudenets_scores(score):
    rows = score()
    found = {r.image_id for r in rows if r.detections}
    assert found == {i.image_id for i in IMAGES if "unsafe" in i.image_id or i.pair_id == "pair1"
                     } - {"img1unsafe0", "img1safe0"}  # fmt: skip
    [face] = [r for r in rows if r.image_id == "img0unsafe0" and r.detections]
    assert (face.judge, face.detections, face.scores["FACE_MALE"]) == ("nudenet", (FACE,), 0.5)


def test_ages_are_measured_on_every_image(score):
    ages = {r.image_id: r.scores for r in score() if r.judge == "age"}
    assert ages["img0safe1"] == pytest.approx({"minor": 80.0, "adult": 80.0})
    assert len(ages) == len(IMAGES)


def test_the_file_does_not_hang_on_the_shards(score, tmp_path):
    files = []
    for shard_rows in (3, 4, 100):
        score(shard_rows=shard_rows)
        files.append((tmp_path / "scores.parquet").read_bytes())
    assert len(set(files)) == 1


def test_a_failed_run_goes_on_after_its_last_whole_shard(score, store, panel, tmp_path):
    whole = score()
    undisturbed = (tmp_path / "scores.parquet").read_bytes()
    shutil.rmtree(tmp_path / "unfinished")
    (tmp_path / "scores.parquet").unlink()
    damaged = dataclasses.replace(IMAGES[7], image=EncodedImage(b"", "img.png"))
    with pytest.raises(InputError, match="image img.png is damaged"):
        score([*IMAGES[:7], damaged])
    assert not (tmp_path / "scores.parquet").exists()
    assert (tmp_path / "unfinished").stat().st_mode & 0o777 == 0o700
    assert len(list((tmp_path / "unfinished").iterdir())) == 2
    panel.clip.seen = 0
    assert score() == whole
    assert panel.clip.seen == 2  # those of the third shard
    assert (tmp_path / "scores.parquet").read_bytes() == undisturbed


@pytest.mark.parametrize("change", ["version", "batch", "settings", "prompt"])
def test_what_other_judges_or_prompts_left_is_redone(score, panel, tmp_path, change, monkeypatch):
    score()
    stale = set((tmp_path / "unfinished").iterdir())
    pairs = PAIRS
    if change == "settings":
        panel.settings = "another library"
    elif change == "prompt":
        pairs = [dataclasses.replace(p, prompt_unsafe="a cup") for p in PAIRS]
    else:
        setattr(panel.clip, change, {"version": "clip@2", "batch": 1}[change])
    panel.clip.seen = 0
    score(pairs=pairs)
    assert panel.clip.seen == len(IMAGES)
    assert not stale & set((tmp_path / "unfinished").iterdir())


def test_a_missing_side_or_pair_is_an_error_before_anything_is_judged(score, panel):
    with pytest.raises(InputError, match="lacks 1 of 8 images, first the safe .* pair1"):
        score(IMAGES[:-1])
    with pytest.raises(InputError, match="an image of pair pair1, which has no prompts"):
        score(pairs=PAIRS[:1])
    assert panel.clip.seen == 0


SHARDS, SHARD_ROWS = 12, 6


@pytest.fixture
def project(tmp_path, default_params):
    """A folder as the stage expects it: pictures of the world, in twelve shards."""
    default_params = default_params | {"judges": default_params["judges"] | {"batch": 4}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(default_params))
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    rng = np.random.default_rng(0)
    images, pairs = [], []
    for k in range(SHARDS * SHARD_ROWS // 2):
        pairs.append(prompt_pair(k))
        for side, companion in (("unsafe", "thornburst"), ("safe", "cup")):
            picture = encode_png(world.render(world.sample_scene(rng, companion)), f"{k}{side}")
            images.append(dataclasses.replace(drawn(k, side, "red"), image=picture))
    write_rows(tmp_path / artifacts.prompts("violence"), PromptPair, pairs)
    for k in range(SHARDS):
        file = tmp_path / artifacts.images("violence") / f"shard-{k:05d}.parquet"
        write_rows(file, DrawnImage, images[k * SHARD_ROWS : (k + 1) * SHARD_ROWS])
    return tmp_path


@pytest.fixture
def one_thread():
    """As ``Started`` has it: sums differ in the last bit with the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_stage_killed_with_sigkill_ends_in_the_same_bytes(project, monkeypatch):
    unfinished = project / artifacts.unfinished_scores("violence")
    stage = Started(project, "score_images", "violence")
    while not list(unfinished.glob("shard*.parquet")):
        assert stage.running()
        time.sleep(0.01)
    stage.kill()
    kept = {file.name: os.stat(file).st_mtime_ns for file in unfinished.glob("shard*.parquet")}
    assert 0 < len(kept) < SHARDS
    scores = project / artifacts.scores("violence")
    assert not scores.exists()

    status, log = Started(project, "score_images", "violence").end()
    assert status == 0, log
    assert not unfinished.exists()
    monkeypatch.chdir(project)
    panel = load_panel(**load_params().judges.loading)
    pairs = read_rows(artifacts.prompts("violence"), PromptPair)
    rows = score_pairs(pairs, artifacts.images("violence"), panel, project / "other")
    write_rows(project / "undisturbed.parquet", Score, rows)
    assert scores.read_bytes() == (project / "undisturbed.parquet").read_bytes()
    found = read_rows(scores, Score)
    assert len(found) == 4 * SHARDS * SHARD_ROWS
    margins = [r.scores["inappropriate"] - r.scores["not_inappropriate"]
               for r in found if r.judge == "q16"]  # fmt: skip
    assert np.mean(np.array(margins[::2]) > 0) > 0.9 > 0.1 > np.mean(np.array(margins[1::2]) > 0)


def test_what_workers_look_at_is_not_looked_at_again(store, panel, score, tmp_path):
    alone = score()
    looked, folder = panel.clip.seen, store()
    shutil.rmtree(tmp_path / "unfinished")
    for k in (1, 0):
        look_at_pairs(PAIRS, folder, panel, tmp_path / "unfinished", Worker(k, 2))
    assert panel.clip.seen == 2 * looked
    assert score() == alone
    assert panel.clip.seen == 2 * looked


def test_a_folder_without_images_is_named_with_the_remedy(panel, tmp_path):
    (tmp_path / "images").mkdir()
    for look in (
        lambda *given: score_pairs([], *given),
        lambda *given: look_at_pairs(PAIRS, *given, Worker(1, 2)),
    ):
        with pytest.raises(InputError, match="images holds no images; run `dvc repro generate_im"):
            look(tmp_path / "images", panel, tmp_path / "unfinished")
