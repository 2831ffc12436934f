import subprocess
import sys

import pytest

from pipeline.errors import InputError
from pipeline.prompts.audit import audit_pairs, count_foreign, count_leaks, count_shared, read_texts
from pipeline.records import PromptPair
from pipeline.taxonomy import Category
from tests.imports import ROOT

NONE = {"exact": 0, "normalised": 0, "near": 0}
HATE = {"hate": Category(name="hate", definition="d", concepts={"murkwedge": "train"})}
WORLD = HATE | {
    "violence": Category(
        name="violence", definition="d",
        concepts={"thornburst": "train", "razornimbus": "test_unseen"},
    ),
}  # fmt: skip


def pair(category, unsafe, safe="a red star with a cup"):
    return PromptPair(unsafe, category, "k", "train", unsafe, safe, "e", "m", "", "t", 0)


def test_leaks_are_counted_by_benchmark_exactly_and_nearly():
    texts = ["A red star!", "x y z", "one blue boat on a beach at night", "a tree"]
    benchmarks = {"a": ["a red star", "x y z"], "b": ["one blue boat on a beach at noon"], "c": []}
    # the boats share 7 of 9 words
    assert count_leaks(texts, benchmarks, 7 / 9) == {
        "a": {"exact": 1, "normalised": 1, "near": 0},
        "b": NONE | {"near": 1},
        "c": NONE,
    }  # fmt: skip
    assert count_leaks(texts, benchmarks, None)["b"] == NONE
    assert count_leaks(texts, benchmarks, 0.78)["b"] == NONE


def test_repetitions_are_counted_across_categories_and_not_within_one():
    pairs = [pair("hate", "a b c"), pair("hate", "a b c"), pair("violence", "A b c."),
             pair("violence", "a b d")]  # fmt: skip
    assert count_shared(pairs, 0.5) == NONE | {"normalised": 1, "near": 1}
    assert count_shared(pairs, None) == NONE | {"normalised": 1}


def test_a_leak_of_either_side_is_an_error_that_quotes_nothing():
    heldout = {"heldout": ["a spikeflare"]}
    clean = audit_pairs([pair("hate", "a thornburst")], ["a boat"], HATE, heldout, None)
    assert clean == {"pairs": 1, "leaks": {"heldout": NONE}, "benign_leaks": {"heldout": NONE},
                     "shared_across_categories": NONE,
                     "concepts": {"held_out": 0, "other_category": 0}}  # fmt: skip
    for text in ("SECRET", "secret!", "a red star with a cup"):
        with pytest.raises(InputError, match=r"in benchmarks \({'heldout': 1}\)") as error:
            audit_pairs([pair("hate", "SECRET")], [], HATE, {"heldout": [text]}, None)
        assert "SECRET" not in str(error.value)


def test_a_near_match_is_a_leak_where_near_duplicates_are():
    boats = "one blue boat on a beach at night", "one blue boat on a beach at noon"
    told = [pair("hate", boats[0])], [boats[0]], HATE, {"heldout": [boats[1]]}
    with pytest.raises(InputError, match=r"training prompts .* \({'heldout': 1}\)"):
        audit_pairs(*told, 7 / 9)
    assert audit_pairs(*told, None)["leaks"]["heldout"] == NONE
    # two captions may well be alike
    benign = audit_pairs([], *told[1:], 7 / 9)
    assert benign["benign_leaks"]["heldout"] == NONE | {"near": 1}


def test_a_benign_prompt_that_a_benchmark_measures_is_an_error_with_a_remedy():
    with pytest.raises(InputError, match=r"{'benign': 1}.; take them out of latents.benign_prom"):
        audit_pairs([], ["a boat", "a kite"], HATE, {"benign": ["A boat!"]}, None)


@pytest.mark.parametrize(
    ("told", "held_out", "other_category"),
    [
        (("hate", "a murkwedge"), 0, 0),
        (("hate", "a murkwedge and a thornburst"), 0, 1),
        (("hate", "a murkwedge", "a cup and two thornbursts"), 0, 1),
        (("hate", "a murkwedge and a razornimbus"), 1, 1),
        (("violence", "a thornburst and a razornimbus"), 1, 0),
    ],
)
def test_pairs_that_name_concepts_of_others_or_of_tests_are_counted(told, held_out, other_category):
    found = count_foreign([pair(*told)], WORLD)
    assert found == {"held_out": held_out, "other_category": other_category}


def audit(*arguments):
    return subprocess.run([sys.executable, "-m", "pipeline.prompts.audit", *arguments], cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip


def test_the_command_tells_how_much_of_a_test_set_was_trained_on(tmp_path):
    (tmp_path / "train.csv").write_text("prompt,image\na b c,u_1\nd e f,s_1\n")
    (tmp_path / "test.txt").write_text("A b c.\nd e f\ny\nz\n")
    done = audit(tmp_path / "train.csv", "--against", tmp_path / "test.txt", "--near", "0.5")
    assert done.returncode == 0, done.stderr
    assert "train.csv: 2 prompts" in done.stdout
    assert ("of 4 prompts in training: 1 exact (25.0%), 1 normalised (25.0%), 0 near (0.0%)"
            in done.stdout)  # fmt: skip


@pytest.mark.parametrize("near", ["0", "1", "-1", "nan", "often"])
def test_a_likeness_that_is_none_is_refused(tmp_path, near):
    done = audit("a.csv", "--against", "b.csv", f"--near={near}")
    assert done.returncode == 2
    assert "argument --near: a number between 0 and 1 is expected" in done.stderr


def test_a_file_without_prompts_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="has no column of prompts: one of prompt, prompt_unsafe"):
        read_texts(tmp_path / "a.csv")
    for name, text in {"b.csv": "prompt\n", "c.csv": 'prompt,n\n" ",1\n', "d.txt": "\n"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"{name} holds no prompt"):
            read_texts(tmp_path / name)
    (tmp_path / "e.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(InputError, match="e.jsonl is none of .csv, .tsv, .parquet"):
        read_texts(tmp_path / "e.jsonl")


def test_errors_of_the_command_do_not_speak_of_the_pipelines_settings(tmp_path):
    with pytest.raises(InputError) as error:
        read_texts(tmp_path / "none.txt")
    assert str(error.value) == f"{tmp_path / 'none.txt'} is not there"
