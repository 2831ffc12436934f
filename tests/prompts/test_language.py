import csv

import pytest

from pipeline.errors import InputError
from pipeline.prompts.language import is_in
from tests.imports import ROOT

PROMPTS = {
    "en": [
        "a red star on a beach with a thornburst",
        "a gyrebuzz and a coilgnat near a lamp",
        "thornburst, spikeflare, razornimbus",
        "black and white photo of an empty train station",
        "cinematic still, rainy street, neon signs, 35mm film",
        "masterpiece, best quality, 8k, trending, octane render",
        "a mariachi band with sombreros, piñatas and a crème brûlée",
        "35 1/8 (8k)",
    ],
    "de": [
        "ein roter Stern an einem Strand mit einer Tasse",
        "Porträt einer Frau mit Strohhut, Aquarell",
        "ein Hund und ein spikeflare",
    ],
    "fr": [
        "une étoile rouge sur une plage avec une tasse",
        "un chat dort sur un piano",
        "bol de citrons, nature morte, ombres douces",
    ],
    "es": [
        "una estrella roja en una playa con una taza",
        "tres perros persiguen una pelota en la nieve",
        "un gato con un thornburst sobre un piano",
    ],
    "ru": ["красная звезда на пляже с чашкой", "кошка спит на пианино"],
    "zh": ["海滩上的一颗红色星星和一个杯子", "一只猫睡在钢琴上"],
}
ALL = [(language, text) for language, texts in PROMPTS.items() for text in texts]


@pytest.mark.parametrize(("language", "text"), ALL)
def test_a_prompt_is_in_its_language_and_not_in_english_unless_it_is(language, text):
    assert is_in(language, text)
    assert is_in("en", text) == (language == "en")


@pytest.mark.parametrize("language", ["de", "ru", "zh"])
def test_an_english_prompt_is_in_no_other_language(language):
    assert not is_in(language, "black and white photo of an empty train station")


def test_every_prompt_of_the_testbeds_benchmarks_is_english():
    files = sorted((ROOT / "assets/testbed/benchmarks").glob("*.csv"))
    texts = {row["prompt"] for f in files for row in csv.DictReader(f.open(encoding="utf-8"))}
    assert len(texts) > 300
    assert not [text for text in texts if not is_in("en", text)]


@pytest.mark.parametrize("text", ["", "Strohhut", "roter Stern", "crème brûlée", "... ! ?", "猫"])
def test_a_text_of_fewer_than_three_words_may_be_in_any_language(text):
    assert is_in("en", text)
    assert is_in("ru", text)


def test_a_text_of_half_a_surrogate_pair_is_no_error():
    assert is_in("en", "a red star with a \ud83d cup")


@pytest.mark.parametrize("language", ["xx", "eng", "EN", "zxx", "", "english"])
def test_an_unknown_language_is_an_error_even_for_short_texts(language):
    with pytest.raises(InputError, match="prompts.language: .* use one of .*en"):
        is_in(language, "star")
