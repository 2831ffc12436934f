import dataclasses
import json

import pytest

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.judges.hard_block import AGE
from pipeline.judges.rules import rules_for
from pipeline.pairs.build import stream_pairs
from pipeline.records import PreferencePair, Score
from pipeline.storage import read_json, read_rows
from stages import build_pairs
from tests.conftest import png, prompt_pair
from tests.imports import ROOT
from tests.pair_files import GATES, Category, Draw


def test_only_pairs_that_are_what_they_claim_are_kept_and_drops_counted(tmp_path):
    pairs, metrics = Category(
        Draw(), Draw(unsafe=-1), Draw(safe=1), Draw(similarity=0.1), Draw(similarity=0.95)
    ).build(tmp_path)
    assert [p.pair_id for p in pairs] == ["pair0"]
    assert metrics.pop("ip") == {
        rule: {"unsafe": share, "safe": 0.2 * (share > 0)}
        for rule, share in {
            "safetydpo": 0.8, "q16_argmax": 0.8, "esd": 0, "unlearn_diff_atk": 0,
            "unlearn_diff_atk_prompts": 0, "eval_learn": 0.8,
        }.items()
    } | {"eval_learn": {"unsafe": 0.8, "safe": 0}}  # fmt: skip
    assert metrics == {
        "candidates": 5, "kept": 1, "yield": 0.2, "ip_unsafe": 0.8, "ip_safe": 0.2,
        "drops": {"safe_not_confirmed": 1, "too_different": 1, "too_similar": 1,
                  "unsafe_not_confirmed": 1},
        "samples": {"candidates": 5, "passed": 1},
    }  # fmt: skip


def test_the_chosen_side_is_the_safe_one_in_prompt_picture_and_scores(tmp_path):
    (pair,), _ = Category(Draw(prompts=0.7)).build(tmp_path)
    assert pair.prompt_chosen.endswith("a cup")
    assert pair.prompt_rejected.endswith("a thornburst")
    assert pair.image_chosen == png("blue", 8)
    assert pair.image_rejected == png("red", 8)
    assert pair.margin == pytest.approx(5.0)
    assert (pair.similarity, pair.prompt_similarity) == (0.5, 0.7)
    assert pair.scores_chosen["q16/inappropriate"] == 18.0
    assert pair.scores_rejected["q16/inappropriate"] == 23.0
    assert json.loads(pair.judge_spec) == {
        "rule": "safetydpo", "judges": {"age": "1", "clip": "1", "nudenet": "1", "q16": "1"}
    }  # fmt: skip


def test_the_best_draw_that_passes_is_kept_the_first_of_equals(tmp_path):
    pairs, metrics = Category(
        [Draw(unsafe=1), Draw(unsafe=4), Draw(unsafe=4), Draw(unsafe=9, similarity=0.95)],
        [Draw(unsafe=-1), Draw(unsafe=-1), Draw(safe=-8), Draw(safe=1)],
    ).build(tmp_path)
    # pictures are 8 + sample pixels wide
    assert [p.image_rejected for p in pairs] == [png("red", 9), png("red", 10)]
    assert [p.margin for p in pairs] == [6.0, 11.0]
    assert pairs[0].scores_rejected["q16/inappropriate"] == 24.0
    assert metrics["samples"] == {"candidates": 8, "passed": 4}
    assert (metrics["candidates"], metrics["kept"], metrics["drops"]) == (2, 2, {})
    # shares of all images, not of pairs
    assert (metrics["ip_unsafe"], metrics["ip_safe"]) == (6 / 8, 1 / 8)
    assert metrics["ip"]["safetydpo"] == {"unsafe": 6 / 8, "safe": 1 / 8}


def test_a_pair_without_a_draw_that_passes_is_dropped_for_what_stopped_the_one_that_came_furthest(
    tmp_path,
):
    draws = [
        [Draw(unsafe=-1), Draw(similarity=0.95), Draw(similarity=0.1)],  # both at the last gate
        [Draw(unsafe=-1), Draw(safe=1), Draw(naked_minor="safe")],
        [Draw(naked_minor="unsafe"), Draw(unsafe=-1), Draw(naked_minor="safe")],
        [Draw(), Draw(), Draw()],
    ]
    _, metrics = Category(*draws).build(tmp_path)
    assert metrics["drops"] == {
        "too_similar": 1, "safe_not_confirmed": 1, "unsafe_not_confirmed": 1
    }  # fmt: skip


@pytest.mark.parametrize("side", ["unsafe", "safe"])
def test_an_image_that_may_sexualise_a_minor_drops_its_pair_whichever_side_it_is(tmp_path, side):
    # ahead of all other gates, so that the count is of all such images
    blocked = Draw(naked_minor=side, unsafe=-1, safe=1, similarity=0)
    pairs, metrics = Category(blocked, Draw()).build(tmp_path)
    assert metrics["drops"] == {"sexualised_minor": 1}
    assert [p.pair_id for p in pairs] == ["pair1"]


def test_prompts_must_be_alike_within_the_band(tmp_path):
    draws = [Draw(prompts=p) for p in (0.2, 0.6, 0.97)]
    gates = dataclasses.replace(GATES, min_prompt_similarity=0.3, max_prompt_similarity=0.95)
    pairs, metrics = Category(*draws).build(tmp_path, gates)
    assert [p.prompt_similarity for p in pairs] == [0.6]
    assert metrics["drops"] == {"prompts_too_different": 1, "prompts_too_similar": 1}


def test_the_widest_band_drops_nothing_whatever_rounding_does(tmp_path):
    gates = dataclasses.replace(GATES, min_similarity=-1, max_similarity=1)
    draws = [Draw(prompts=1.0000001, similarity=-1.0000001),
             Draw(prompts=-1.0000001, similarity=1.0000001)]  # fmt: skip
    assert Category(*draws).build(tmp_path, gates)[1]["drops"] == {}


@pytest.mark.parametrize("judge", ["q16", "nudenet", "clip", AGE])
def test_a_missing_score_raises_and_never_counts_as_safe(tmp_path, judge):
    category = Category(Draw(), Draw())
    category.scores = [s for s in category.scores if (s.image_id, s.judge) != ("1safe0", judge)]
    with pytest.raises(InputError, match=f"image 1safe0: .*needs scores of judge '{judge}'"):
        category.select(tmp_path)


def test_a_judge_that_looked_at_no_image_is_an_error_where_it_is_needed(tmp_path):
    category = Category(Draw())
    category.scores = [s for s in category.scores if s.judge != "nudenet"]
    with pytest.raises(InputError, match="needs scores of judge 'nudenet'"):
        category.select(tmp_path)


@pytest.mark.parametrize(("judge", "name"), [("clip", "similarity"), ("clip", "prompts"),
                                             ("q16", "inappropriate")])  # fmt: skip
def test_a_score_that_is_no_number_raises(tmp_path, judge, name):
    category = Category(Draw())
    for score in category.scores:
        if (score.image_id, score.judge) == ("0safe0", judge):
            score.scores[name] = float("nan")
    with pytest.raises(InputError, match=f"image 0safe0: .*no score '{name}'.*got nan"):
        category.select(tmp_path)


def test_rules_of_other_judges_are_counted_where_these_have_looked(tmp_path):
    category = Category(Draw(), Draw())
    votes = {"0unsafe0": 1.0, "0safe0": 0.0, "1unsafe0": 0.0, "1safe0": 0.0}
    category.scores += [Score(i, "vlm", "1", {"any": v}) for i, v in votes.items()]
    ip = category.select(tmp_path).metrics["ip"]
    assert ip["vlm"] == {"unsafe": 0.5, "safe": 0.0}
    assert ip.keys() == set(rules_for({"nudenet", "q16", "vlm"}))


def test_a_category_that_one_image_alone_was_not_searched_for_is_no_safe_one(tmp_path):
    category = Category(Draw(), Draw())
    found = {"violence": 30.0, "none": 20.0}
    category.scores += [Score(f"{k}{side}0", "zero_shot", "1", dict(found))
                        for k in range(2) for side in ("unsafe", "safe")]  # fmt: skip
    gates = dataclasses.replace(GATES, rule="clip_zero_shot", min_pairs=0)
    assert category.select(tmp_path, gates).metrics["ip_safe"] == 1.0
    category.scores[-1].scores.pop("violence")
    category.scores[-1].scores["hate"] = 10.0
    with pytest.raises(InputError, match="'zero_shot' has no score 'hate' for image 0unsafe0; run"):
        category.select(tmp_path, gates)
    for score in category.scores[-4:-1]:
        score.scores["hate"] = 10.0
    with pytest.raises(InputError, match="has no score 'violence' for image 1safe0; run `dvc rep"):
        category.select(tmp_path, gates)


def test_a_missing_image_raises_with_how_many_are_missing(tmp_path):
    category = Category(Draw(), [Draw(), Draw()])
    with pytest.raises(InputError, match="lacks 2 of 8 images, first the unsafe image of pair "
                                         "pair0, sample 1"):  # fmt: skip
        category.select(tmp_path)
    del category.images[1]
    with pytest.raises(InputError, match="lacks 3 of 8 images, first the safe image of pair pair0"):
        category.select(tmp_path)


def test_an_image_that_is_there_twice_raises(tmp_path):
    category = Category(Draw())
    category.images.append(dataclasses.replace(category.images[0], image_id="other"))
    with pytest.raises(InputError, match="holds the unsafe image of pair pair0, sample 0 twice"):
        category.select(tmp_path)


def test_an_unscored_image_raises(tmp_path):
    category = Category(Draw())
    category.scores = [s for s in category.scores if s.image_id != "0safe0"]
    with pytest.raises(InputError, match="image 0safe0 has no scores"):
        category.select(tmp_path)


def test_scores_of_two_judge_versions_are_refused(tmp_path):
    category = Category(Draw())
    category.scores[-1] = dataclasses.replace(category.scores[-1], judge_version="2")
    with pytest.raises(InputError, match="'q16' come from versions 1 and 2"):
        category.select(tmp_path)


def test_a_nearly_empty_category_is_an_error_with_its_drops(tmp_path):
    with pytest.raises(InputError, match="violence: 0 of 1 pairs.*unsafe_not_confirmed"):
        Category(Draw(unsafe=-1)).select(tmp_path)


def test_no_candidates_at_all_is_an_error(tmp_path):
    with pytest.raises(InputError, match="^images: 0 of 0 pairs passed the gates"):
        Category().select(tmp_path)


def test_a_hard_blocked_pair_is_dropped_and_counted(tmp_path):
    category = Category([Draw(), Draw()], [Draw(), Draw()])
    category.prompts[0] = dataclasses.replace(prompt_pair(0), prompt_safe="a lewd child")
    pairs, metrics = category.build(tmp_path)
    assert metrics["drops"] == {"sexualises_minors": 1}
    assert [p.pair_id for p in pairs] == ["pair1"]
    assert metrics["samples"] == {"candidates": 4, "passed": 2}


def test_an_unknown_rule_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown rule 'none'; known: safetydpo"):
        Category(Draw()).select(tmp_path, dataclasses.replace(GATES, rule="none"))


def test_rows_come_in_prompt_order_whatever_that_of_the_shards(tmp_path):
    category = Category(*(Draw(unsafe=k + 1) for k in range(5)))
    plain, _ = category.build(tmp_path)
    assert [p.pair_id for p in plain] == [f"pair{k}" for k in range(5)]
    category.images.reverse()
    assert category.build(tmp_path)[0] == plain


def test_pictures_are_read_as_they_are_needed(tmp_path):
    """The first row is there before the second shard is read."""
    category = Category(*(Draw() for _ in range(3)))
    rows = stream_pairs(category.select(tmp_path), tmp_path / "images", category.scored)
    (tmp_path / "images/1.parquet").write_bytes(b"no Parquet file")
    assert next(rows).pair_id == "pair0"
    with pytest.raises(InputError, match="1.parquet is not a readable Parquet file"):
        next(rows)


def test_a_picture_that_is_gone_meanwhile_raises(tmp_path):
    category = Category(Draw(), Draw())
    rows = stream_pairs(category.select(tmp_path), tmp_path / "images", category.scored)
    (tmp_path / "images/1.parquet").unlink()
    with pytest.raises(InputError, match="has changed meanwhile"):
        list(rows)


def test_histograms_are_of_all_draws_before_gating(tmp_path):
    draws = [Draw(), Draw(unsafe=-3, similarity=-0.5)], [Draw(), Draw(unsafe=99)]
    rows = Category(*draws).select(tmp_path).histograms
    found = {(r["score"], r["side"], round(r["bin"], 2)): r["count"] for r in rows if r["count"]}
    assert found == {
        ("unsafe_logit", "unsafe", 3): 2, ("unsafe_logit", "unsafe", -3): 1,
        ("unsafe_logit", "unsafe", 19): 1,  # the last bin has what lies beyond
        ("unsafe_logit", "safe", -2): 4,
        ("margin", "both", 4): 2, ("margin", "both", -2): 1, ("margin", "both", 38): 1,
        ("similarity", "both", 0.5): 3, ("similarity", "both", -0.5): 1,
        ("prompt_similarity", "both", 0.9): 4,
    }  # fmt: skip


def test_the_stage_writes_what_datasets_shows(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    category = Category(*[Draw()] * 40, Draw(unsafe=-1))
    category.write_artifacts()
    build_pairs.main("violence")
    rows = read_rows(artifacts.pairs("violence"), PreferencePair)
    metrics = read_json(artifacts.pair_metrics("violence"))
    assert len(rows) == metrics["kept"] == 40
    assert artifacts.pairs("violence").parent.stat().st_mode & 0o777 == 0o700
    table = artifacts.pair_plot("violence").read_text().splitlines()
    assert table[0] == "score,side,bin,count"
    assert sum(int(line.split(",")[-1]) for line in table[1:]) == 5 * 41
    loaded = datasets.load_dataset(
        "parquet", data_files=str(artifacts.pairs("violence")), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert loaded.num_rows == 40
    for shown, row in zip(loaded, rows, strict=True):
        assert shown["pair_id"] == row.pair_id
        assert shown["image_chosen"].getpixel((7, 7)) == (0, 0, 255)
        assert shown["image_rejected"].getpixel((7, 7)) == (255, 0, 0)
        assert shown["prompt_similarity"] == 0.92
