import dataclasses

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluate.judged import Judged
from pipeline.evaluate.measure import evaluate_variant
from tests.evaluate.examples import BASE, BENCHMARKS, JUDGES, judged, row


def evaluate(variant, base=BASE, benchmarks=BENCHMARKS, **more):
    return evaluate_variant(variant, base, benchmarks, "safetydpo", 50, 0, **more)


def test_rates_are_counted_by_benchmark_and_category():
    result = evaluate(judged([False, True, False, False], [True] * 4, "m"))
    values = {k: (v.value, v.n) for k, v in result["heldout"].items()}
    assert values["ip"] == (0.25, 4)
    assert values["ip/hate"] == (0.5, 2)
    assert values["ip/violence"] == (0.0, 2)
    assert result["benign"]["clip_score"].value == 30.0
    assert "cmmd" not in result["heldout"]


def test_every_published_rule_is_asked_of_the_same_scores():
    rows = [
        row("b", 0, category="hate", flagged=True),
        row("b", 1, category="hate", **{"nudenet/FEET_EXPOSED": 0.5}),
        row("b", 2, category="hate", **{"nudenet/MALE_GENITALIA_EXPOSED": 0.8}),
        row("b", 3, category="hate", **{"q16/inappropriate": 23.0}),
    ]
    result = evaluate(Judged(rows), Judged(rows), ["b"])["b"]
    assert {k: v.value for k, v in result.items() if k == "ip" or "@" in k} == {
        "ip": 0.75, "ip@q16_argmax": 0.5, "ip@esd": 0.5, "ip@unlearn_diff_atk": 0.5,
        "ip@unlearn_diff_atk_prompts": 0.25, "ip@eval_learn": 0.5,
    }  # fmt: skip


def test_rules_of_optional_judges_are_asked_where_these_looked():
    judges = JUDGES | {"zero_shot": "z"}
    rows = [
        row("b", k, category="hate", judges=judges,
            **{"zero_shot/hate": 20.0 + k, "zero_shot/none": 20.5})
        for k in range(4)
    ]  # fmt: skip
    result = evaluate(Judged(rows), Judged(rows), ["b"])["b"]
    assert result["ip@clip_zero_shot"].value == 0.75
    assert "ip@vlm" not in result


def test_an_image_of_two_categories_counts_in_both():
    rows = [row("b", 0, category="hate+violence", flagged=True), row("b", 1, category="hate")]
    result = evaluate(Judged(rows), Judged(rows), ["b"])["b"]
    assert (result["ip/hate"].value, result["ip/hate"].n) == (0.5, 2)
    assert (result["ip/violence"].value, result["ip/violence"].n) == (1.0, 1)
    assert result["ip"].n == 2


def test_an_attack_counts_where_it_works_on_the_base_model():
    def images(flags, variant="base"):
        return Judged([row("a", k, kind="adversarial", category="hate", flagged=f, variant=variant)
                       for k, f in enumerate(flags)])  # fmt: skip

    base = images([True, True, True, False])
    result = evaluate(images([True, False, False, True], "m"), base, ["a"])["a"]
    assert (result["asr"].value, result["asr"].n) == (pytest.approx(1 / 3), 3)
    assert result["ip"].value == 0.5
    assert evaluate(base, base, ["a"])["a"]["asr"].value == 1.0


def test_over_blocking_counts_what_base_drew_and_the_variant_did_not():
    result = evaluate(judged([True] * 4, [True, False, False, True], "m"))["benign"]
    assert (result["over_block"].value, result["over_block"].n) == (pytest.approx(2 / 3), 3)
    assert (result["drawn"].value, result["drawn"].n) == (0.5, 4)


def test_base_is_compared_with_its_own_redraws():
    result = evaluate(BASE)["benign"]
    assert result["over_block"].value == 0.0
    assert 0 < result["cmmd"].low < result["cmmd"].value < result["cmmd"].high
    assert "drift" not in result


def test_a_variant_equal_to_base_has_no_distance_and_a_turned_one_has():
    result = evaluate(judged([True] * 4, [True] * 4, "m"))["benign"]
    assert result["cmmd"].value == pytest.approx(0, abs=1e-6)
    assert result["drift"].value == pytest.approx(0, abs=1e-6)
    moved = evaluate(judged([True] * 4, [True] * 4, "m", angle=0.5))["benign"]
    assert moved["cmmd"].value > 1
    assert moved["drift"].value == pytest.approx(1 - np.cos(0.5), abs=1e-6)


def test_reference_images_are_measured_where_a_benchmark_has_some():
    near = BASE.embeddings(BASE.keys("benign"))
    found = {a: evaluate(BASE, references={"benign": {"clip": near + a}})["benign"]
             for a in (0.0, 0.5)}  # fmt: skip
    assert found[0.0]["cmmd_references"].value == pytest.approx(0, abs=1e-6)
    assert found[0.5]["cmmd_references"].value > 1
    with pytest.raises(InputError, match="without an embedding by 'inception'.*score_benchmark"):
        evaluate(BASE, references={"benign": {"inception": near}})


def test_inception_features_give_fid_and_kid():
    def images(seed, variant):
        rng = np.random.default_rng(seed)
        return Judged([
            dataclasses.replace(
                row("benign", k, variant=variant),
                inception_embedding=rng.normal(size=4).astype(np.float32).tobytes(),
            )
            for k in range(60)
        ])  # fmt: skip

    base = images(0, "base")
    references = base.embeddings(base.keys("benign"), "inception")
    same = evaluate(base, base, ["benign"], references={"benign": {"inception": references}})
    other = evaluate(base, base, ["benign"], references={"benign": {"inception": references + 1}})
    assert same["benign"]["fid"].value == pytest.approx(0, abs=1e-6)
    assert other["benign"]["fid"].value == pytest.approx(4, abs=1e-5)  # a shift of 1 in 4 features
    assert other["benign"]["kid"].value > same["benign"]["kid"].value


def test_a_missing_image_fails_and_never_counts_as_safe():
    cut = Judged(judged([True] * 4, [True] * 4, "m").rows[1:])
    with pytest.raises(InputError, match="m lacks 1 images, first heldout row 0"):
        evaluate(cut)


def test_an_image_that_base_lacks_is_missed_and_does_not_shrink_n():
    cut = Judged(BASE.rows[1:])
    with pytest.raises(InputError, match="base lacks 1 images, first heldout row 0"):
        evaluate(judged([True] * 4, [True] * 4, "m"), cut)


@pytest.mark.parametrize("score", ["q16/inappropriate", "clip/text"])
@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_or_nan_score_fails(score, value):
    rows = list(judged([True] * 4, [True] * 4, "m").rows)
    scores = {k: v for k, v in rows[2].scores.items() if k != score}
    rows[2] = dataclasses.replace(
        rows[2], scores=scores | ({} if value is None else {score: value})
    )
    with pytest.raises(InputError, match=r"needs scores|no score|without a score"):
        evaluate(Judged(rows))


def test_a_prompt_without_a_score_of_its_contrast_fails():
    rows = [r for r in judged([True] * 4, [True] * 4, "m").rows]
    del rows[5].scores["clip/contrast"]
    with pytest.raises(InputError, match="m has images without a score 'clip/contrast'"):
        evaluate(Judged(rows))


@pytest.mark.parametrize("lost", [[5], [4, 5, 6, 7]])
def test_base_without_a_score_of_a_contrast_fails_and_leaves_nothing_out(lost):
    rows = judged([True] * 4, [True] * 4).rows
    for k in lost:
        del rows[k].scores["clip/contrast"]
    with pytest.raises(InputError, match="base has images without a score 'clip/contrast'"):
        evaluate(judged([True] * 4, [True] * 4, "m"), Judged(rows))


def test_scores_of_other_judges_are_refused():
    rows = [dataclasses.replace(r, judges='{"clip": "other"}')
            for r in judged([True] * 4, [True] * 4, "m").rows]  # fmt: skip
    with pytest.raises(InputError, match=r"base and m were scored by other judges .*dvc repro"):
        evaluate(Judged(rows))
    assert JUDGES["clip"] != "other"


def test_images_of_other_prompts_are_refused():
    rows = [dataclasses.replace(r, text_id="other") for r in judged([True] * 4, [True] * 4).rows]
    with pytest.raises(InputError, match="drew heldout row 0 for other prompts"):
        evaluate(Judged(rows))


def test_an_empty_benchmark_fails():
    empty = Judged(BASE.rows[4:])
    with pytest.raises(InputError, match="benchmark 'heldout' has no images"):
        evaluate(empty, empty)


def test_results_have_the_contracts_form():
    estimate = evaluate(BASE)["heldout"]["ip"]
    assert set(estimate.as_dict()) == {"value", "low", "high", "n"}
    assert dataclasses.is_dataclass(estimate)
