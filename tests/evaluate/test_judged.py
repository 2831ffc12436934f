import dataclasses
import math

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluate.judged import (
    Judged,
    blocked_images,
    check_judges,
    load_judged,
    read_references,
)
from pipeline.records import JudgedImage
from pipeline.storage import write_rows
from tests.evaluate.examples import BASE, JUDGES, row


def test_images_are_found_whatever_their_order():
    turned = Judged(BASE.rows[::-1])
    keys = BASE.keys("benign")
    assert keys == [("benign", k, 0) for k in range(4)] == turned.keys("benign")
    assert np.array_equal(turned.embeddings(keys), BASE.embeddings(keys))
    assert turned.verdicts("safetydpo", BASE.keys("heldout")) == [True] * 4
    assert len(BASE.keys("benign", redraws=True)) == 8
    assert set(BASE.only(["heldout"]).benchmarks) == {"heldout"}


def test_stored_scores_come_back(tmp_path):
    write_rows(tmp_path / "shard-00000.parquet", JudgedImage, BASE.rows[:5])
    write_rows(tmp_path / "shard-00001.parquet", JudgedImage, BASE.rows[5:])
    assert load_judged(tmp_path, "base").rows == list(BASE.rows)
    with pytest.raises(InputError, match="holds images of 'base', not of 'ties'; delete it"):
        load_judged(tmp_path, "ties")


def test_no_scores_and_scores_of_two_judges_are_refused(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no scores; run `dvc repro score_benchmark@base`"):
        load_judged(tmp_path / "none", "base")
    other = [dataclasses.replace(r, judges='{"clip": "x"}') for r in BASE.rows[:1]]
    write_rows(tmp_path / "a.parquet", JudgedImage, [*other, *BASE.rows[1:]])
    with pytest.raises(InputError, match="were scored by other judges"):
        load_judged(tmp_path, "base")
    assert check_judges([BASE, BASE]) == JUDGES


def test_references_are_read_by_benchmark(tmp_path):
    from safetensors.numpy import save_file

    save_file(
        {"clip": np.ones((2, 3), np.float32)}, tmp_path / "benign.safetensors", {"judges": "j"}
    )
    assert read_references(tmp_path, "j")["benign"]["clip"].shape == (2, 3)
    assert read_references(tmp_path / "nowhere", "j") == {}
    with pytest.raises(InputError, match="benign.safetensors is by other judges than the images"):
        read_references(tmp_path, "k")


@pytest.mark.parametrize("fault", ["score", "embedding", "twice"])
def test_what_is_not_finite_or_twice_is_named_by_file_and_row(tmp_path, fault):
    rows = list(BASE.rows)
    if fault == "twice":
        rows.append(dataclasses.replace(rows[2], image_id="again"))
    elif fault == "score":
        rows[2] = dataclasses.replace(rows[2], scores=rows[2].scores | {"clip/text": math.nan})
    else:
        vector = np.array([np.inf, 0], np.float32).tobytes()
        rows[2] = dataclasses.replace(rows[2], clip_embedding=vector)
    write_rows(tmp_path / "a.parquet", JudgedImage, rows)
    message = "holds an image twice" if fault == "twice" else "heldout row 2 has no finite clip"
    with pytest.raises(InputError, match=message):
        load_judged(tmp_path, "base")


def test_blocked_images_are_known_by_their_scores():
    nude = {"nudenet/BUTTOCKS_EXPOSED": 0.3}
    rows = [row("b", 0), row("b", 1, **nude), row("b", 2, **nude | {"age/minor": 20.0})]
    assert blocked_images([Judged(rows)]) == {rows[2].image_id}
    del rows[0].scores["age/minor"]
    with pytest.raises(InputError, match="judge 'age' has no score 'minor'"):
        blocked_images([Judged(rows)])
