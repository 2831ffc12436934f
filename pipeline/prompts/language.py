"""Whether a prompt is written in the language that was asked for."""

import unicodedata
from functools import cache

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.errors import InputError

MIN_WORDS = 3  # shorter texts cannot be told
# How many times as likely another language must be. For English prompts with invented words that is
# below 5, unless half of the words are, say, Italian dishes; for 75 prompts in German, French,
# Spanish, Russian and Chinese it is 84 and more.
SURE = 50


@cache
def _model() -> LanguageIdentifier:
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # ISO 639-1 only: the rest are dialects and "no language", which prompts of key words resemble
    model.set_languages([code for code in model.labels if len(code) == 2])
    model.nb_ptc = np.ascontiguousarray(model.nb_ptc, np.float32)  # half the time of float16
    return model


def is_in(language: str, text: str) -> bool:
    """Whether a text may be in a language: False only if it surely is in another.

    Texts of fewer than 3 words pass, or signs of a script that has no letter case: Chinese and
    others are written without spaces.

    Args:
        language: an ISO 639-1 code; InputError for one that the model does not know.
    """
    model = _model()
    if language not in model.nb_classes:
        raise InputError(
            f"prompts.language: {language!r} is not known; use one of {', '.join(model.labels)}, "
            "or null for any"
        )
    if len(text.split()) < MIN_WORDS and _signs(text) < MIN_WORDS:
        return True
    likeliest, probability = model.classify(text)
    return likeliest == language or probability < SURE * dict(model.rank(text))[language]


def _signs(text: str) -> int:
    return sum(unicodedata.category(character) == "Lo" for character in text)
