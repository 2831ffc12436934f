import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.personal.scored import Shown, judge_methods, shown_by_methods
from pipeline.personal.shown import METHODS, PSA, audience_key
from pipeline.personal.space import Boundary
from pipeline.records import BenchmarkImage, JudgedImage
from pipeline.scoring.panel import Panel
from pipeline.storage import read_rows, write_rows
from tests.conftest import png
from tests.scoring.test_benchmarks import FakeClip, FakeJudge, FakeQ16


def boundary(*banned, seed=0):
    vector = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    return Boundary(frozenset(banned), vector)


@pytest.fixture
def panel():
    return Panel(FakeClip(), FakeQ16(), FakeJudge())


def draw(images, method, key, colours=("red", "blue")):
    """The pictures of one audience, as drawing leaves them."""
    variant = f"{method}/{key}"
    rows = [
        BenchmarkImage(f"{variant}-{k}", "heldout", "unsafe", k, 0, "red star", "hate", "c", "", k,
                       variant, png(colour, 8))
        for k, colour in enumerate(colours)
    ]  # fmt: skip
    write_rows(images / method / key / "shard-00000.parquet", BenchmarkImage, rows)


def test_every_audiences_pictures_are_scored_once_and_stale_scores_removed(tmp_path, panel):
    images, scores = tmp_path / "images", tmp_path / "scores"
    for method, key in (("psa", "a"), ("psa", "b"), ("prompt", "a")):
        draw(images, method, key)
    assert judge_methods(images, scores, panel) == 6
    assert judge_methods(images, scores, panel) == 0
    (scores / "stray").mkdir()
    (scores / "psa" / "gone").mkdir()
    draw(images, "psa", "b", ("green", "blue"))
    rows = read_rows(scores / "psa" / "b", JudgedImage)
    write_rows(scores / "psa" / "b" / "shard-00000.parquet", JudgedImage, rows[:1])
    assert judge_methods(images, scores, panel) == 2  # of which scores were not complete
    assert {p.relative_to(scores).as_posix() for p in scores.glob("*/*")} == {
        "psa/a", "psa/b", "prompt/a"
    }  # fmt: skip
    assert {p.name for p in scores.iterdir()} == {"psa", "prompt"}
    for folder in (scores, scores / "psa", scores / "psa" / "a"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert [r.scores["q16/inappropriate"] for r in read_rows(scores / "psa/b", JudgedImage)] == [
        0.0, 0.0
    ]  # fmt: skip
    assert [r.variant for r in read_rows(scores / "prompt/a", JudgedImage)] == ["prompt/a"] * 2


def test_nothing_drawn_is_an_error(tmp_path, panel):
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="images holds no pictures; run `dvc repro sample_psa`"):
        judge_methods(tmp_path / "images", tmp_path / "scores", panel)
    (tmp_path / "images" / "psa" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no images"):
        judge_methods(tmp_path / "images", tmp_path / "scores", panel)


@pytest.mark.parametrize("by_bans", [True, False])
def test_people_are_shown_what_was_drawn_for_their_conditions(tmp_path, panel, by_bans):
    one, twin, strict = boundary("hate"), boundary("hate", seed=1), boundary("hate", "sexual")
    keys = {audience_key(b, by_bans) for b in (one, twin, strict)}
    assert len(keys) == (2 if by_bans else 3)
    for key in keys:
        draw(tmp_path / "images", PSA, key)
    judge_methods(tmp_path / "images", tmp_path / "scores", panel)
    shown = Shown(tmp_path / "scores" / PSA, PSA, by_bans)
    found = {name: shown.to(b) for name, b in (("one", one), ("twin", twin), ("strict", strict))}
    assert found["one"].variant == f"psa/{audience_key(one, by_bans)}"
    assert (found["one"] is found["twin"]) == by_bans  # who is shown the same shares the object
    assert found["one"] is not found["strict"]
    assert shown.to(one) is found["one"]
    assert [r.row for r in found["one"].rows] == [0, 1]


def test_what_was_drawn_for_nobody_is_an_error_and_never_anothers(tmp_path, panel):
    draw(tmp_path / "images", PSA, audience_key(boundary("hate"), True))
    judge_methods(tmp_path / "images", tmp_path / "scores", panel)
    with pytest.raises(InputError, match="is missing"):
        Shown(tmp_path / "scores" / PSA, PSA, True).to(boundary("violence"))
    with pytest.raises(InputError, match="holds images of 'psa/.*, not of 'prompt/"):
        Shown(tmp_path / "scores" / PSA, "prompt", True).to(boundary("hate"))


@pytest.mark.parametrize("gated", [True, False])
def test_only_an_adapter_of_the_papers_form_depends_on_more_than_bans(tmp_path, gated):
    found = shown_by_methods(tmp_path, gated)
    assert list(found) == list(METHODS)
    assert {name: shown.by_bans for name, shown in found.items()} == {
        "psa": gated, "negative_prompt": True, "prompt": True
    }  # fmt: skip
    assert all(s.folder == tmp_path / name and s.method == name for name, s in found.items())
