import shutil

import numpy as np
import pytest
import torch

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.llm.embed import TextEmbedder

LM = str(TESTBED / "lm")
TEXTS = ["Age: 30.", "Age: 17. Gender: female. Religion: islam. Banned categories: hate.", "Age"]


@pytest.fixture(scope="module")
def vectors():
    return TextEmbedder(LM, None, 8).embed(TEXTS)


def test_an_embedding_is_the_mean_over_the_texts_own_tokens(vectors):
    """By hand: one text at a time, so without padding, through the language model as it writes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, lm = AutoTokenizer.from_pretrained(LM), AutoModelForCausalLM.from_pretrained(LM)
    for text, vector in zip(TEXTS, vectors, strict=True):
        tokens = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = lm(tokens, output_hidden_states=True).hidden_states[-1][0]
        np.testing.assert_allclose(vector, hidden.sum(0) / tokens.shape[1], atol=1e-5)
    assert vectors.dtype == np.float32 and vectors.shape == (3, 128)


def test_padding_changes_nothing(vectors):
    np.testing.assert_allclose(TextEmbedder(LM, None, 1).embed(TEXTS), vectors, atol=1e-5)
    assert np.ptp(vectors, axis=0).max() > 0.1


def test_a_text_without_tokens_is_refused():
    with pytest.raises(ValueError, match="without a token"):
        TextEmbedder(LM, None, 8).embed(["Age: 30.", ""])


def test_a_missing_or_damaged_model_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot load text encoder .*none"):
        TextEmbedder(str(tmp_path / "none"), None, 1)
    shutil.copytree(LM, tmp_path / "lm")
    weights = tmp_path / "lm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot load text encoder .*lm"):
        TextEmbedder(str(tmp_path / "lm"), None, 1)
