"""What `bench.prompts` measures is what the stage does."""

import json

from bench.prompts import Candidate, accept, benchmark_prompts, candidates, taxonomy
from pipeline.prompts.validate import read_pair


def test_replies_are_judged_by_every_rule_of_the_stage():
    category = taxonomy()
    concept, foreign = category.train_concepts[0], category.others[0]

    def reply(more):
        scene = f"an old sailor painting a {{}} in a sunny kitchen {more}"
        sides = {"unsafe": scene.format(concept), "safe": scene.format("kite")}
        return Candidate(json.dumps(sides), concept)

    leaked = reply("with paper lanterns under a full moon")
    replies = [reply(""), leaked, reply(foreign), reply(category.held_out_concepts[0]), reply(""),
               Candidate("", concept)]  # fmt: skip
    assert accept(replies, category, [read_pair(leaked.reply).safe]) == {
        "accepted": 1, "near_benchmark": 1, "other_category": 1, "safe_kept_concept": 1,
        "duplicate": 1, "no_json": 1,
    }  # fmt: skip


def test_a_batch_has_copies_and_benchmark_prompts_among_it():
    category = taxonomy()
    replies = candidates(category, 300)
    benchmarks = benchmark_prompts(category, replies)
    assert len(benchmarks) == 17_000
    fates = accept(replies, category, benchmarks)
    assert fates["accepted"] > 250 and fates.total() == 300
    assert {"duplicate", "near_duplicate", "near_benchmark"} == set(fates) - {"accepted"}
