import os
from pathlib import Path

import pytest
import torch

from pipeline.artifacts import LORA_FILE
from pipeline.custody.kinds import (
    EMPTY,
    KEPT,
    KEPT_AT,
    UNKNOWN,
    UNSAFE,
    UNSAFE_AT,
    VERDICTS,
    content_kind,
    judge,
    kind_at,
)
from pipeline.exports.kinds import PickedPair
from pipeline.latents import FILE, save_latents
from pipeline.lora import save_lora
from pipeline.merging.calibration import save_moments
from pipeline.personal.files import save_adapter, save_space
from pipeline.records import (
    BenchmarkImage,
    BenchmarkPrompt,
    DrawnImage,
    JudgedImage,
    PreferencePair,
    PromptPair,
    Score,
    StoredImage,
    User,
    UserPair,
)
from pipeline.shipping.files import save_kohya
from pipeline.storage import write_rows
from pipeline.studies.dial import Outcome
from pipeline.training.checkpoints import Checkpoints, TrainState
from tests.conftest import png
from tests.merging.examples import layer, moments, random_expert
from tests.personal.examples import make_adapter, make_space
from tests.test_dvc import STUDIES, body, outputs

NO_OUTPUTS = {Path(".checkpoints"), Path(".dvc/tmp/exps"), Path("generated"), Path("dvclive")}


def test_every_output_of_every_stage_is_in_one_place_and_every_place_has_outputs():
    """A new stage's output must be added to UNSAFE_AT or KEPT_AT."""
    places = [p for kinds in (UNSAFE_AT, KEPT_AT) for some in kinds.values() for p in some]
    used = set()
    for output in outputs():
        here = [place for place in places if Path(output).is_relative_to(place)]
        assert len(here) == 1, f"{output} is in {here}"
        used.update(here)
    assert set(places) - used == NO_OUTPUTS
    assert all(body(stage)["wdir"] == ".." for stage in STUDIES)  # so are the paths of its lock


@pytest.mark.parametrize(
    ("path", "verdict"),
    [("data/images/violence", UNSAFE), ("data/prompts/violence.parquet", UNSAFE),
     ("data/latents/violence/latents.safetensors", UNSAFE), ("report/summary.md", UNSAFE),
     ("data/scores/violence.parquet", KEPT), ("models/shipped", KEPT), ("data/imagesque", None),
     ("data", None), ("params.yaml", None)],
)  # fmt: skip
def test_paths_have_kinds(path, verdict):
    assert VERDICTS.get(kind_at(Path(path))) == verdict


@pytest.mark.parametrize(
    ("row_type", "kind"),
    [(PickedPair, "images"), (PromptPair, "prompts"), (BenchmarkPrompt, "prompts"),
     (DrawnImage, "images"), (StoredImage, "images"), (PreferencePair, "images"),
     (BenchmarkImage, "images"),
     (JudgedImage, "embeddings"), (Score, "scores"), (Outcome, "scores"), (User, "users"),
     (UserPair, "users")],
)  # fmt: skip
def test_tables_are_told_by_their_columns(tmp_path, row_type, kind):
    write_rows(tmp_path / "object", row_type, [])
    assert content_kind(tmp_path / "object") == kind


def test_tensors_are_told_by_what_the_writers_leave(tmp_path, tiny_latents, tiny_unet):
    experts, parameters = random_expert(0), {"a": torch.nn.Parameter(torch.zeros(2))}
    made = {"base_revision": "tiny", "inputs": "x"}
    save_latents(tmp_path, tiny_latents)
    save_moments(tmp_path / "moments", moments(0, experts), made)
    save_lora(tmp_path / "lora", experts, {})
    save_kohya(tmp_path / "kohya", {"down_blocks.0.x.to_k": layer([[1.0, 2.0]])}, {})
    save_adapter(tmp_path / "psa", make_adapter(tiny_unet), make_space(), {})
    save_space(tmp_path / "space", make_space())
    Checkpoints(tmp_path / "run", "id").save(
        TrainState(3), parameters, torch.optim.SGD([*parameters.values()])
    )
    files = {FILE: "latents", "moments": "latents", f"lora/{LORA_FILE}": "models",
             "kohya": "models", "psa": "models", "space": "users",
             "run/step-00000003.safetensors": None}  # fmt: skip
    assert {name: content_kind(tmp_path / name) for name in files} == files


def test_what_was_cut_off_may_hold_anything(tmp_path):
    write_rows(tmp_path / "a", Score, [])
    content = (tmp_path / "a").read_bytes()
    damaged = content[:-40] + b"\xff" * 32 + content[-8:]  # of the footer
    for left in (content[: len(content) // 2], damaged):
        (tmp_path / "a").write_bytes(left)
        assert VERDICTS[content_kind(tmp_path / "a")] == UNSAFE


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (png("red").bytes, "images"),
        (png("red").bytes[:100], "images"),
        (b"<!DOCTYPE html>\n<img src='data:image/webp;base64,AA'>", "reports"),
        (b"<html>a chart</html>", None),
        (b'{"value": 1}', None),
        (b"a line of text", None),
        (b"", EMPTY),
    ],
)
def test_other_files_are_told_by_how_they_begin(tmp_path, content, kind):
    (tmp_path / "object").write_bytes(content)
    assert content_kind(tmp_path / "object") == kind


def test_links_are_not_followed_and_pipes_are_not_read(tmp_path):
    (tmp_path / "image").write_bytes(png("red").bytes)
    (tmp_path / "link").symlink_to(tmp_path / "image")
    os.mkfifo(tmp_path / "pipe")
    assert content_kind(tmp_path / "link") is None
    assert content_kind(tmp_path / "pipe") is None


@pytest.mark.parametrize(
    ("content", "named", "verdict"),
    [
        ("images", [], UNSAFE),
        ("images", ["models"], UNSAFE),  # whatever its place says
        ("models", [], KEPT),
        ("models", ["images"], UNSAFE),  # a merge inside of an unsafe output goes with it
        ("models", ["images", "models"], KEPT),  # the same file is a model of its own too
        (None, ["latents"], UNSAFE),
        (None, ["metrics"], KEPT),
        (None, [], UNKNOWN),
    ],
)
def test_content_goes_before_names_where_it_is_unsafe(content, named, verdict):
    assert judge(content, named)[0] == verdict
