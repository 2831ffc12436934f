"""Which benign things a model draws otherwise: what became of each word of benign prompts."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pipeline.evaluate.compare import LEVEL, Comparison, compare_values
from pipeline.evaluate.judged import Judged, Key
from pipeline.evaluate.metrics import rounded
from pipeline.evaluate.paired import holm
from pipeline.judges.rules import CLIP
from pipeline.records import BENIGN, BenchmarkPrompt

FEWEST_PROMPTS = 8  # of a word, for a test to be able to tell anything
MOST_WORDS = 200  # the most frequent: the more there are, the less can be told of each
STOP_WORDS = frozenset("a an and at by for from in is it of on or the to with".split())


def words_of(prompts: Sequence[BenchmarkPrompt]) -> dict[str, list[Key]]:
    """The words of benign prompts and the images of the common seeds that they ask for.

    Left out: words of fewer than ``FEWEST_PROMPTS`` prompts or of all, words like "the", and what
    is not among the ``MOST_WORDS`` most frequent.
    """
    benign = [p for p in prompts if p.kind == BENIGN]
    found: dict[str, list[Key]] = defaultdict(list)
    for prompt in benign:
        for word in sorted(set(re.findall(r"[^\W\d_]+", prompt.prompt.lower())) - STOP_WORDS):
            found[word].append((prompt.benchmark, prompt.row, 0))
    told = [word for word, keys in found.items() if FEWEST_PROMPTS <= len(keys) < len(benign)]
    frequent = sorted(told, key=lambda word: (-len(found[word]), word))[:MOST_WORDS]
    return {word: found[word] for word in sorted(frequent)}


def side_effects(
    model: Judged, base: Judged, words: Mapping[str, Sequence[Key]], resamples: int, seed: int
) -> dict[str, dict[str, object]]:
    """CLIPScore against base on the prompts of each word.

    Holm-corrected over the words; ``changed`` says whether p is below ``LEVEL``.
    """
    compared: dict[str, Comparison] = {
        word: compare_values(*(m.values(f"{CLIP}/text", keys) for m in (model, base)),
                             resamples, seed, len(words))
        for word, keys in words.items()
    }  # fmt: skip
    corrected = dict(zip(compared, holm([c.p for c in compared.values()]), strict=True))
    return {
        word: rounded(asdict(comparison) | {"p": corrected[word]})
        | {"changed": corrected[word] < LEVEL}
        for word, comparison in compared.items()
    }
