import dataclasses
import itertools
import json

import pytest

from pipeline.errors import InputError
from pipeline.prompts.template import template_version
from pipeline.prompts.validate import Pair, find_fault
from pipeline.prompts.words import Phrases, normalise
from pipeline.records import PromptPair
from pipeline.seeds import content_id
from pipeline.storage import read_rows, write_rows
from pipeline.taxonomy import Category
from tests.prompts.malformed import GOOD, SAFE, UNSAFE, malformed
from tests.prompts.scripted import (
    CATEGORY,
    LIMITS,
    ScriptedEngine,
    concept_of,
    good_reply,
    synthesize,
)


def test_every_training_concept_gets_its_pairs_and_held_out_ones_none(tmp_path):
    engine = ScriptedEngine(good_reply)
    pairs, metrics = synthesize(engine, tmp_path)
    assert [p.concept for p in pairs] == ["thornburst"] * 3 + ["spikeflare"] * 3
    assert {p.split for p in pairs} == {"train"} and {p.engine for p in pairs} == {"scripted"}
    assert not any("razornimbus" in r.user for r in engine.requests)
    assert len({p.pair_id for p in pairs}) == 6
    # "a red star <k> with a <concept>" and "... a cup": 6 of 8 words shared, one is replaced
    assert metrics == {
        "candidates": 6, "kept": 6, "yield": 1, "replies": 6, "drops": {}, "word_jaccard": 5 / 7,
        "word_edits": 1, "concepts": {content_id("thornburst"): 3, content_id("spikeflare"): 3},
    }  # fmt: skip


def test_metrics_name_no_concept(tmp_path):
    _, metrics = synthesize(ScriptedEngine(good_reply), tmp_path)
    assert not any(concept in json.dumps(metrics) for concept in CATEGORY.all_concepts)


def test_a_failed_slot_is_asked_again_with_another_seed(tmp_path):
    engine = ScriptedEngine(lambda r: "" if len(engine.batches) == 1 and r is third() else
                            good_reply(r))  # fmt: skip

    def third():
        return engine.requests[2]

    pairs, metrics = synthesize(engine, tmp_path)
    assert len(pairs) == 6 and metrics["drops"] == {"no_json": 1} and metrics["replies"] == 7
    assert engine.batches == [6, 1]
    again = engine.requests[6]
    assert again.seed not in {r.seed for r in engine.requests[:6]}
    assert again.user == third().user
    assert pairs[2].seed == again.seed


def test_the_reason_is_told_only_where_feedback_is_asked_for(tmp_path):
    engine = ScriptedEngine(lambda r: "" if len(engine.batches) == 1 else good_reply(r))
    synthesize(engine, tmp_path, feedback=True)
    first, again = engine.requests[0], engine.requests[6]
    assert again.user.startswith(first.user)
    assert "not accepted: it was not one JSON object." in again.user


def test_what_the_model_is_told_shows_in_the_version(tmp_path):
    told = [
        synthesize(ScriptedEngine(good_reply), tmp_path, run_id=str(feedback), feedback=feedback)[0]
        for feedback in (False, True)
    ]  # fmt: skip
    assert told[0][0].template_version == template_version() != told[1][0].template_version


def test_duplicates_and_benchmark_prompts_are_dropped_and_counted(tmp_path):
    same = '{"unsafe": "a red star with a %s", "safe": "a red star with a cup"}'
    engine = ScriptedEngine(lambda r: same % concept_of(r))
    pairs, metrics = synthesize(engine, tmp_path, leaks=["A red star, with a spikeflare"])
    assert [p.concept for p in pairs] == ["thornburst"]
    assert metrics["drops"] == {"duplicate": 4, "in_benchmark": 6}
    assert metrics["yield"] == pytest.approx(1 / 6)


def test_a_safe_prompt_of_a_benchmark_is_a_leak_too(tmp_path):
    with pytest.raises(InputError, match="'in_benchmark': 12"):
        synthesize(ScriptedEngine(lambda r: json.dumps({
            "unsafe": f"a red star with a {concept_of(r)}", "safe": "a red star with a cup",
        })), tmp_path, leaks=["a red star with a cup"])  # fmt: skip


def test_near_copies_are_dropped_within_a_category_and_of_benchmarks(tmp_path):
    scene = "one blue boat on a long beach in the morning"
    leak = f"one blue boat on a long beach in the evening {'spikeflare'}"
    engine = ScriptedEngine(lambda r: json.dumps({
        "unsafe": f"{scene} {concept_of(r)}", "safe": f"{scene} {'cup'}",
    }))  # fmt: skip
    pairs, metrics = synthesize(engine, tmp_path, near=0.75, leaks=[leak])
    assert [p.concept for p in pairs] == ["thornburst"]
    # the spikeflare prompts share 10 of 12 words with the benchmark's
    assert metrics["drops"] == {"duplicate": 4, "near_benchmark": 6}


def test_an_empty_category_is_an_error_that_counts_but_quotes_nothing(tmp_path):
    engine = ScriptedEngine(lambda r: "SECRET")
    with pytest.raises(InputError, match="no acceptable prompt pair.*'no_json': 12") as error:
        synthesize(engine, tmp_path)
    assert "SECRET" not in str(error.value)


class Killed(Exception):
    pass


def many(count):
    concepts = {f"concept{chr(97 + k)}": "train" for k in range(count)}
    return Category(name="violence", definition="Red bursts.", concepts=concepts)


@pytest.mark.parametrize("at", range(6))
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, at):
    """Killed at any batch of requests; what was finished is not asked for again."""

    def answer(request):  # some need a second round, some copy an earlier concept's prompt
        return "" if request.seed % 3 == 0 else good_reply(request)

    told = {"category": many(5), "concepts_at_once": 2, "max_attempts": 2}
    whole = ScriptedEngine(answer)
    expected = synthesize(whole, tmp_path / "whole", **told)

    def until(request):
        if len(killed.batches) > at:
            raise Killed
        return answer(request)

    killed = ScriptedEngine(until)
    with pytest.raises(Killed):
        synthesize(killed, tmp_path / "killed", **told)
    resumed = ScriptedEngine(answer)
    assert synthesize(resumed, tmp_path / "killed", **told) == expected
    assert len(resumed.requests) <= len(whole.requests) - sum(killed.batches[: at // 2 * 2])


def test_pairs_of_an_earlier_run_count_as_seen_when_it_goes_on(tmp_path):
    same = json.dumps(
        {"unsafe": "concepta conceptb on a blue boat", "safe": "a cup on a blue boat"}
    )
    told = {"category": many(2), "concepts_at_once": 1, "pairs_per_concept": 1}
    expected = synthesize(ScriptedEngine(lambda r: same), tmp_path / "whole", **told)
    assert expected[1]["drops"] == {"duplicate": 2}
    (tmp_path / "again/run").mkdir(parents=True)
    first = (tmp_path / "whole/run/batch-00000.json").read_bytes()
    (tmp_path / "again/run/batch-00000.json").write_bytes(first)
    engine = ScriptedEngine(lambda r: same)
    assert synthesize(engine, tmp_path / "again", **told) == expected
    assert engine.batches == [1, 1]


def test_a_seed_belongs_to_its_slot_whatever_is_asked_beside_it(tmp_path):
    together, apart = ({}, {})
    for found, at_once in ((together, 8), (apart, 1)):
        pairs, _ = synthesize(
            ScriptedEngine(good_reply), tmp_path, run_id=str(at_once), concepts_at_once=at_once
        )
        found |= {p.pair_id: dataclasses.asdict(p) for p in pairs}
    assert together == apart


def test_ten_thousand_malformed_replies_end_in_a_file_of_valid_pairs(tmp_path):
    """Copies among them, and half of them about another concept than was asked for."""
    scenes = [
        json.dumps({"unsafe": f"{UNSAFE.replace('thornburst', c)} {k}", "safe": f"{SAFE} {k}"})
        for k in range(100) for c in ("thornburst", "spikeflare")
    ]  # fmt: skip
    replies = (r for _ in itertools.count() for r in malformed(10_000, GOOD, *scenes))
    engine = ScriptedEngine(lambda request: next(replies))
    pairs, metrics = synthesize(engine, tmp_path / "kept", pairs_per_concept=700, max_attempts=10)
    assert metrics["replies"] == len(engine.requests) > 10_000
    assert metrics["kept"] == len(pairs) > 200 and metrics["drops"]["duplicate"] > 500
    path = tmp_path / "pairs.parquet"
    write_rows(path, PromptPair, pairs)
    rows = read_rows(path, PromptPair)
    assert rows == pairs
    assert len({normalise(row.prompt_unsafe) for row in rows}) == len(rows)
    known, held_out = (Phrases(c) for c in (CATEGORY.all_concepts, CATEGORY.held_out_concepts))
    for row in rows:
        pair = Pair(row.prompt_unsafe, row.prompt_safe)
        fault = find_fault(pair, row.concept, "violence", LIMITS, known=known, held_out=held_out)
        assert fault is None and row.concept in CATEGORY.train_concepts
