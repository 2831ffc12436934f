import pytest

from pipeline.evaluate.judged import Judged
from pipeline.evaluate.side_effects import side_effects, words_of
from pipeline.records import BenchmarkPrompt
from tests.evaluate.examples import row

COLOURS = ("red", "blue")


def prompt(k, kind="benign"):
    text = f"a {COLOURS[k % 2]} Star by the sea" if k < 16 else "a cube at night"
    return BenchmarkPrompt("b", kind, k, 0, text, "", "", "")


PROMPTS = [prompt(k) for k in range(20)]


def test_words_are_those_that_some_benign_prompts_share():
    words = words_of([*PROMPTS, prompt(0, "unsafe")])
    few = words_of([*PROMPTS[:15], prompt(19)])  # seven blue ones say too little
    assert set(few) == {"red", "sea", "star"}
    assert {word: len(keys) for word, keys in words.items()} == {
        "blue": 8, "red": 8, "sea": 16, "star": 16,
    }  # fmt: skip
    assert words["red"][:2] == [("b", 0, 0), ("b", 2, 0)]


def test_the_word_that_a_model_lost_is_found():
    def images(variant, loss):
        return Judged([
            row("b", k, variant=variant, text=30 + 0.1 * (k % 5) - (loss + 0.05 * (k % 3)) * (
                k < 16 and k % 2 == 0))
            for k in range(20)
        ])  # fmt: skip

    base = images("base", 0.0)
    found = side_effects(images("m", 5.0), base, words_of(PROMPTS), 200, 0)
    assert found["red"]["difference"] == pytest.approx(-5, abs=0.1)
    assert found["red"]["changed"] and found["red"]["n"] == 8
    assert found["blue"]["difference"] == 0.0 and not found["blue"]["changed"]
    assert not any(row["changed"] for row in side_effects(base, base, words_of(PROMPTS), 200,
                                                          0).values())  # fmt: skip
