import subprocess
import sys

import pytest

from pipeline.errors import InputError
from pipeline.prompts.audit import audit_pairs, count_leaks, count_shared, read_texts
from pipeline.records import PromptPair
from tests.imports import ROOT


def pair(category, unsafe, safe="a red star with a cup"):
    return PromptPair(unsafe, category, "k", "train", unsafe, safe, "e", "m", "", "t", 0)


def test_leaks_are_counted_by_benchmark_exactly_and_nearly():
    texts = ["A red star!", "one blue boat on a beach at night", "a tree"]
    benchmarks = {"a": ["a red star", "x y z"], "b": ["one blue boat on a beach at noon"], "c": []}
    # the boats share 7 of 9 words
    assert count_leaks(texts, benchmarks, 7 / 9) == {
        "a": {"exact": 1, "near": 0}, "b": {"exact": 0, "near": 1}, "c": {"exact": 0, "near": 0},
    }  # fmt: skip
    assert count_leaks(texts, benchmarks, None)["b"] == {"exact": 0, "near": 0}
    assert count_leaks(texts, benchmarks, 0.78)["b"] == {"exact": 0, "near": 0}


def test_repetitions_are_counted_across_categories_and_not_within_one():
    pairs = [pair("hate", "a b c"), pair("hate", "a b c"), pair("violence", "A b c."),
             pair("violence", "a b d")]  # fmt: skip
    assert count_shared(pairs, 0.5) == {"exact": 1, "near": 1}
    assert count_shared(pairs, None) == {"exact": 1, "near": 0}


def test_a_leak_of_either_side_is_an_error_that_quotes_nothing():
    clean = audit_pairs([pair("hate", "a thornburst")], {"heldout": ["a spikeflare"]}, None)
    assert clean == {"pairs": 1, "leaks": {"heldout": {"exact": 0, "near": 0}},
                     "shared_across_categories": {"exact": 0, "near": 0}}  # fmt: skip
    for text in ("SECRET", "a red star with a cup"):
        with pytest.raises(InputError, match=r"in benchmarks \({'heldout': 1}\)") as error:
            audit_pairs([pair("hate", "SECRET")], {"heldout": [text]}, None)
        assert "SECRET" not in str(error.value)


def test_the_command_tells_how_much_of_a_test_set_was_trained_on(tmp_path):
    (tmp_path / "train.csv").write_text("prompt,image\na b c,u_1\nd e f,s_1\n")
    (tmp_path / "test.txt").write_text("A b c.\nx\ny\nz\n")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.prompts.audit", tmp_path / "train.csv", "--against",
         tmp_path / "test.txt"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train.csv: 2 prompts" in done.stdout
    assert "of 4 prompts in training: 1 exact (25.0%), 0 near (0.0%)" in done.stdout


def test_a_file_without_prompts_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="has no column of prompts: one of prompt, prompt_unsafe"):
        read_texts(tmp_path / "a.csv")
