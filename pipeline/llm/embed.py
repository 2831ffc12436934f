"""Texts as vectors: the mean-pooled last hidden state of a language model.

The other engines write; here a model only reads.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import InputError, first_line
from pipeline.progress import progress_bar


class TextEmbedder:
    """A local language model through transformers, loaded from safetensors."""

    def __init__(self, model: str, revision: str | None, batch: int) -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            # padding on the right leaves the positions of a causal model's tokens as they are
            self._tokenizer = AutoTokenizer.from_pretrained(
                model, revision=revision, padding_side="right"
            )
            loaded = AutoModel.from_pretrained(model, revision=revision, use_safetensors=True)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"cannot load text encoder {model!r}: {first_line(error)}") from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._batch = batch

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as (n, width) float32: the mean over each text's own tokens.

        Raises ValueError for no texts, or one without a token: its mean would be of nothing.
        """
        import torch

        parts = []
        with progress_bar(len(texts), "embed", "text") as progress, torch.no_grad():
            for start in range(0, len(texts), self._batch):
                part = list(texts[start : start + self._batch])
                parts.append(self._embed_batch(part))
                progress.update(len(part))
        return np.concatenate(parts)

    def _embed_batch(self, texts: list[str]) -> np.ndarray:
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True).to(self._model.device)
        mask = inputs["attention_mask"].unsqueeze(2)  # (batch, tokens, 1), 0 for padding
        if (mask.sum(1) == 0).any():
            raise ValueError("a text without a token has no embedding")
        hidden = self._model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).last_hidden_state.float()
        return ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()
