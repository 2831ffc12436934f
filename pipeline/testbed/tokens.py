"""Word-level BPE tokenizers for the bundled models, trained on the world's own texts."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.testbed import world

CAPTION_TOKENS = 32  # context length of the bundled text encoders


def world_words() -> list[str]:
    """Every word a caption of the world can hold, in a fixed order."""
    phrases = [phrase for phrase, *_ in world.SETTINGS.values()]
    words = " ".join(["a an with", *phrases]).split()
    nouns = [*world.COLOURS, *world.SHAPES, *world.COMPANIONS, *world.LOOKALIKES]
    return list(dict.fromkeys([*words, *nouns, *world.CATEGORY_OF]))


def save_caption_tokenizer(folder: Path, extra_words: Sequence[str] = ()) -> None:
    """Train and save a CLIP tokenizer in which every word of the world is one token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list(",.-'")
    trainer = trainers.BpeTrainer(
        vocab_size=4096, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    # each letter also ends a word once, so that unknown words still spell out
    bpe.train_from_iterator([*world_words(), *extra_words, *alphabet] * 4, trainer)
    model = json.loads(bpe.to_str())["model"]
    vocab = dict(model["vocab"])
    for token in ("<|startoftext|>", "<|endoftext|>"):  # last ids: CLIP pools at the largest
        vocab[token] = len(vocab)
    merges = [tuple(m) for m in model["merges"]]
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CAPTION_TOKENS)
    tokenizer.save_pretrained(folder)
