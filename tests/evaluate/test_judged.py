import dataclasses
import math

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluate.judged import (
    Judged,
    blocked_images,
    check_complete,
    check_judges,
    load_complete,
    load_judged,
    read_references,
)
from pipeline.judges.raw import hash_texts
from pipeline.records import BenchmarkPrompt, JudgedImage
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


PROMPTS = [BenchmarkPrompt("b", "benign", k, 1, f"prompt {k}", "", "", "c") for k in range(3)]


def drawn_for(prompts, redraws=1):
    return [
        dataclasses.replace(row(p.benchmark, p.row, redraw=k, contrast=29.0),
                            text_id=hash_texts(p.prompt, "c"))
        for p in prompts for k in range(redraws + 1)
    ]  # fmt: skip


def test_there_is_one_image_of_every_prompt_and_no_other():
    rows = drawn_for(PROMPTS)
    check_complete(Judged(rows[::-1]), PROMPTS, redraws=True)
    check_complete(Judged(drawn_for(PROMPTS, redraws=0)), PROMPTS, redraws=False)
    for lost in range(len(rows)):
        with pytest.raises(InputError, match=f"base lacks 1 images, first b row {lost // 2};"):
            check_complete(Judged(rows[:lost] + rows[lost + 1 :]), PROMPTS, redraws=True)
    with pytest.raises(InputError, match="base has an image of b row 0, redraw 1, for which no"):
        check_complete(
            Judged(rows), PROMPTS, redraws=False
        )  # further seeds, which nobody asked for
    with pytest.raises(InputError, match="base has an image of b row 2, redraw 0, for which no"):
        check_complete(Judged(rows), PROMPTS[:2], redraws=True)
    other = [*PROMPTS[:2], dataclasses.replace(PROMPTS[2], prompt="new")]
    with pytest.raises(InputError, match="drew b row 2 for another prompt than that benchmark has"):
        check_complete(Judged(rows), other, redraws=True)


def test_where_a_prompt_has_a_contrast_every_image_has_a_score_of_it():
    for lost in range(2 * len(PROMPTS)):
        rows = drawn_for(PROMPTS)
        del rows[lost].scores["clip/contrast"]
        drawn = f"b row {lost // 2}" + ", redraw 1" * (lost % 2)
        with pytest.raises(InputError, match=f"base: {drawn} has no score 'clip/contrast'"):
            check_complete(Judged(rows), PROMPTS, redraws=True)
    plain = [dataclasses.replace(p, contrast="") for p in PROMPTS]
    rows = [dataclasses.replace(row("b", p.row), text_id=hash_texts(p.prompt, "")) for p in plain]
    check_complete(Judged(rows), plain, redraws=False)


def test_only_the_base_model_is_to_have_images_of_further_seeds(tmp_path):
    write_rows(tmp_path / "base/a.parquet", JudgedImage, drawn_for(PROMPTS))
    once = [dataclasses.replace(r, variant="m") for r in drawn_for(PROMPTS, redraws=0)]
    write_rows(tmp_path / "m/a.parquet", JudgedImage, once)
    assert len(load_complete(tmp_path / "base", "base", PROMPTS).rows) == 6
    assert len(load_complete(tmp_path / "m", "m", PROMPTS).rows) == 3
    with pytest.raises(InputError, match="m lacks 1 images, first b row 3"):
        load_complete(tmp_path / "m", "m", [*PROMPTS, dataclasses.replace(PROMPTS[0], row=3)])


def test_images_of_other_benchmarks_are_left_out_where_only_some_are_asked_for(tmp_path):
    more = [*PROMPTS, dataclasses.replace(PROMPTS[0], benchmark="other")]
    write_rows(tmp_path / "base/a.parquet", JudgedImage, drawn_for(more))
    assert len(load_complete(tmp_path / "base", "base", PROMPTS, ["b"]).rows) == 6
    with pytest.raises(InputError, match="base has an image of other row 0"):
        load_complete(tmp_path / "base", "base", PROMPTS)
    with pytest.raises(InputError, match="base lacks 2 images, first other row 0"):
        load_complete(tmp_path / "base", "base", more, ["b"])


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


@pytest.mark.parametrize("size", [0, 5, 40, -1])
def test_a_file_of_references_that_is_cut_off_is_named_with_the_remedy(tmp_path, size):
    from safetensors.numpy import save_file

    path = tmp_path / "benign.safetensors"
    save_file({"clip": np.ones((2, 3), np.float32)}, path, {"judges": "j"})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="benign.safetensors is damaged .*repro score_references`"):
        read_references(tmp_path, "j")


@pytest.mark.parametrize("of", [0, 5, 11])
def test_a_category_that_one_image_alone_was_not_searched_for_is_no_safe_one(tmp_path, of):
    found = {"zero_shot/hate": 10.0, "zero_shot/violence": 10.0, "zero_shot/none": 20.0}
    rows = [row("b", k, contrast=29.0 if k % 2 else None, **found) for k in range(12)]
    write_rows(tmp_path / "a.parquet", JudgedImage, rows)
    assert load_judged(tmp_path, "base").rows == rows
    del rows[of].scores["zero_shot/violence"]
    write_rows(tmp_path / "a.parquet", JudgedImage, rows)
    with pytest.raises(InputError, match=f"b row {of} has no score 'zero_shot/violence'; delete"):
        load_judged(tmp_path, "base")


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
