import dataclasses
import json

import pytest

from pipeline.errors import InputError
from pipeline.judges.nudenet import CLASSES
from pipeline.pairs import PairGates, build_pairs
from pipeline.records import DrawnImage, Score
from tests.conftest import png, prompt_pair

GATES = PairGates("safetydpo", min_similarity=0.2, max_similarity=0.9, min_pairs=1)


def image(k, side):
    return DrawnImage(f"{k}{side}", f"pair{k}", side, 0, 0, "m", "r", "{}", png("red", 8))


def score_rows(k, side, inappropriate, similarity=0.5, version="1"):
    q16 = {"inappropriate": 20.0 + inappropriate, "not_inappropriate": 20.0}
    clip = {"text": 30.0, "similarity": similarity, "prompts": 0.9}
    values = {"clip": clip, "nudenet": dict.fromkeys(CLASSES, 0.0), "q16": q16}
    return [Score(f"{k}{side}", judge, version, v) for judge, v in values.items()]


def build(cases, gates=GATES, drop_score=None):
    """Cases are (unsafe side's Q16 margin, safe side's, similarity)."""
    prompts, images, scores = [], [], []
    for k, (unsafe, safe, similarity) in enumerate(cases):
        prompts.append(prompt_pair(k))
        images += [image(k, "unsafe"), image(k, "safe")]
        scores += score_rows(k, "unsafe", unsafe, similarity) + score_rows(
            k, "safe", safe, similarity
        )
    scores = [s for s in scores if (s.image_id, s.judge) != drop_score]
    return build_pairs(prompts, images, scores, gates)


def test_only_pairs_that_are_what_they_claim_are_kept_and_drops_counted():
    pairs, metrics = build([
        (3, -2, 0.5), (-1, -2, 0.5), (3, 1, 0.5), (3, -2, 0.1), (3, -2, 0.95),
    ])  # fmt: skip
    assert [p.pair_id for p in pairs] == ["pair0"]
    assert metrics == {
        "candidates": 5, "kept": 1, "yield": 0.2, "ip_unsafe": 0.8, "ip_safe": 0.2,
        "drops": {"safe_not_confirmed": 1, "too_different": 1, "too_similar": 1,
                  "unsafe_not_confirmed": 1},
    }  # fmt: skip


def test_the_chosen_side_is_the_safe_one():
    (pair,), _ = build([(3, -2, 0.5)])
    assert pair.prompt_chosen.endswith("a cup")
    assert pair.prompt_rejected.endswith("a thornburst")
    assert pair.margin == pytest.approx(5.0)
    assert pair.scores_rejected["q16/inappropriate"] == 23.0
    assert json.loads(pair.judge_spec) == {
        "rule": "safetydpo", "judges": {"clip": "1", "nudenet": "1", "q16": "1"}
    }  # fmt: skip


@pytest.mark.parametrize("judge", ["q16", "nudenet"])
def test_a_missing_score_raises_and_never_counts_as_safe(judge):
    with pytest.raises(InputError, match=f"needs scores of judge '{judge}'"):
        build([(3, -2, 0.5)], drop_score=("0safe", judge))


def test_a_missing_image_raises():
    with pytest.raises(InputError, match="pair pair0 has no safe image"):
        build_pairs([prompt_pair(0)], [image(0, "unsafe")], score_rows(0, "unsafe", 3), GATES)


def test_an_unscored_image_raises():
    images = [image(0, "unsafe"), image(0, "safe")]
    with pytest.raises(InputError, match="image 0safe has no scores"):
        build_pairs([prompt_pair(0)], images, score_rows(0, "unsafe", 3), GATES)


def test_scores_of_two_judge_versions_are_refused():
    images = [image(0, "unsafe"), image(0, "safe")]
    scores = score_rows(0, "unsafe", 3) + score_rows(0, "safe", -1, version="2")
    with pytest.raises(InputError, match="come from versions 1 and 2"):
        build_pairs([prompt_pair(0)], images, scores, GATES)


def test_a_nearly_empty_category_is_an_error_with_its_drops():
    with pytest.raises(InputError, match="violence: 0 of 1 pairs.*unsafe_not_confirmed"):
        build([(-1, -2, 0.5)])


def test_no_candidates_at_all_is_an_error():
    with pytest.raises(InputError, match="an empty category: 0 of 0"):
        build([])


def test_a_hard_blocked_pair_is_dropped_and_counted():
    prompts = [dataclasses.replace(prompt_pair(k), prompt_safe=t) for k, t in
               enumerate(["a lewd child", "a cup"])]  # fmt: skip
    images = [image(k, s) for k in range(2) for s in ("unsafe", "safe")]
    scores = [r for k in range(2) for s, m in (("unsafe", 3), ("safe", -1))
              for r in score_rows(k, s, m)]  # fmt: skip
    pairs, metrics = build_pairs(prompts, images, scores, GATES)
    assert metrics["drops"] == {"sexualises_minors": 1}
    assert [p.pair_id for p in pairs] == ["pair1"]
