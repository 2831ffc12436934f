"""The one door to language models: chat requests in, texts out.

Every request carries its own seed and is sampled with noise of its own, so a reply depends on the
batch it was computed in by no more than float rounding. Engines are imported inside the functions
that need them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import InputError, first_line
from pipeline.progress import progress_bar


@dataclass(frozen=True)
class ChatRequest:
    """One chat turn to answer; ``seed`` alone decides the sampling noise."""

    system: str
    user: str
    seed: int

    @property
    def messages(self) -> list[dict[str, str]]:
        """The request in the chat format of every engine."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


class Engine(Protocol):
    """A loaded language model."""

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Reply to every request, in order."""


class TransformersEngine:
    """A local causal LM through transformers; the testbed's default."""

    def __init__(
        self, model: str, revision: str | None, temperature: float, max_new_tokens: int, batch: int
    ) -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                model, revision=revision, padding_side="left"
            )
            loaded = AutoModelForCausalLM.from_pretrained(
                model, revision=revision, use_safetensors=True
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"cannot load prompts.model {model!r}: {first_line(error)}") from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = loaded.to(device).eval()
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._batch = batch

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Reply to every request in batches; sampling noise is drawn per request."""
        replies: list[str] = []
        with progress_bar(len(requests), "write prompts", "reply") as progress:
            for start in range(0, len(requests), self._batch):
                replies += self._generate_batch(requests[start : start + self._batch])
                progress.update(len(replies) - start)
        return replies

    def _generate_batch(self, requests: Sequence[ChatRequest]) -> list[str]:
        from transformers import LogitsProcessorList

        texts = [
            self._tokenizer.apply_chat_template(
                r.messages, tokenize=False, add_generation_prompt=True
            )
            for r in requests
        ]
        inputs = self._tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self._model.device)
        noise = _gumbel_noise([r.seed for r in requests], self._temperature)
        tokens = self._model.generate(
            **inputs, do_sample=False, max_new_tokens=self._max_new_tokens,
            logits_processor=LogitsProcessorList([noise]),
            pad_token_id=self._tokenizer.pad_token_id,
        )  # fmt: skip
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return self._tokenizer.batch_decode(new, skip_special_tokens=True)


def _gumbel_noise(seeds: Sequence[int], temperature: float) -> Callable:
    """A logits processor that makes greedy decoding sample, with one generator per row.

    argmax(logits / T + Gumbel noise) is a draw from softmax(logits / T); T = 0 stays greedy.
    """
    import torch

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def add_noise(_, scores: "torch.Tensor") -> "torch.Tensor":
        if temperature == 0:
            return scores
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in generators])
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))
        return scores / temperature + gumbel.to(scores)

    return add_noise


ENGINES: dict[str, type] = {"transformers": TransformersEngine}


def load_engine(
    engine: str, model: str, revision: str | None, temperature: float, max_new_tokens: int,
    batch: int,
) -> Engine:  # fmt: skip
    """Load the named engine; an unknown name raises InputError with the known ones."""
    if engine not in ENGINES:
        raise InputError(f"unknown LLM engine {engine!r}; known: {', '.join(ENGINES)}")
    return ENGINES[engine](model, revision, temperature, max_new_tokens, batch)
