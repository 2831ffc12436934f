"""A local language model through transformers: the engine of the default profile.

Every request is sampled with noise of its own, so a reply depends on the batch it was computed in
by no more than float rounding.
"""

from collections.abc import Callable, Sequence

from pipeline.errors import InputError, first_line
from pipeline.llm.chat import ChatRequest, Sampling
from pipeline.progress import progress_bar


class TransformersEngine:
    """A causal LM of a folder or the hub, from safetensors; text only, JSON schemas not enforced.

    Raises InputError when the model cannot be loaded or has no chat template.
    """

    def __init__(self, model: str, revision: str | None, sampling: Sampling, *, batch: int) -> None:
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
            check_chat_template(self._tokenizer, model)
            loaded = AutoModelForCausalLM.from_pretrained(
                model, revision=revision, use_safetensors=True
            )
        except InputError:
            raise
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"cannot load llm.model {model!r}: {first_line(error)}") from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = loaded.to(device).eval()
        self._context = getattr(loaded.config, "max_position_embeddings", None)
        self._name, self._sampling, self._batch = model, sampling, batch
        as_text(self._tokenizer, model, ChatRequest("a", "b", 0))  # before work starts

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Reply to every request in batches; sampling noise is drawn per request."""
        if any(r.images for r in requests):
            raise InputError("llm.engine transformers sees no pictures; use vllm or openai")
        replies: list[str] = []
        with progress_bar(len(requests), "language model", "reply") as progress:
            for start in range(0, len(requests), self._batch):
                replies += self._generate_batch(requests[start : start + self._batch])
                progress.update(len(replies) - start)
        return replies

    def _generate_batch(self, requests: Sequence[ChatRequest]) -> list[str]:
        from transformers import LogitsProcessorList

        inputs = self._tokenizer(
            [as_text(self._tokenizer, self._name, r) for r in requests], return_tensors="pt",
            padding=True, add_special_tokens=False,
        ).to(self._model.device)  # fmt: skip
        asked = inputs["input_ids"].shape[1]
        check_context(self._name, asked, self._sampling.max_new_tokens, self._context)
        noise = _gumbel_noise([r.seed for r in requests], self._sampling)
        tokens = self._model.generate(  # without the penalty that may come with a model
            **inputs, do_sample=False, max_new_tokens=self._sampling.max_new_tokens,
            repetition_penalty=1.0, logits_processor=LogitsProcessorList([noise]),
            pad_token_id=self._tokenizer.pad_token_id,
        )  # fmt: skip
        return self._tokenizer.batch_decode(tokens[:, asked:], skip_special_tokens=True)


def check_chat_template(tokenizer: object, model: str) -> None:
    """Raise InputError for a tokenizer without a chat template: a base model, not a chat model."""
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"llm.model {model!r} has no chat template, so it cannot be asked anything; use its "
            "instruction-tuned version"
        )


def as_text(tokenizer: object, model: str, request: ChatRequest) -> str:
    """A request in the model's own chat template; InputError when that refuses its turns."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            request.messages, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise InputError(
            f"the chat template of llm.model {model!r} refuses a system and a user turn "
            f"({first_line(error)}); use another model"
        ) from error


def check_context(
    model: str, asked: int, new: int, context: int | None,
    remedy: str = "use a model with a longer context",
) -> None:  # fmt: skip
    """Raise InputError when a request's tokens and those of its reply exceed the context."""
    if context is not None and asked + new > context:
        raise InputError(
            f"llm.model {model!r} has a context of {context} tokens, but a request has {asked} and "
            f"llm.max_new_tokens is {new}; lower that, or {remedy}"
        )


def _gumbel_noise(seeds: Sequence[int], sampling: Sampling) -> Callable:
    """A logits processor that makes greedy decoding sample, with one generator per row.

    argmax(logits / T + Gumbel noise) is a draw from softmax(logits / T); T = 0 stays greedy.
    """
    import torch
    from transformers import TopPLogitsWarper

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    likeliest = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None

    def add_noise(tokens: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        if sampling.temperature == 0:
            return scores
        scores = scores / sampling.temperature
        if likeliest is not None:
            scores = likeliest(tokens, scores)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in generators])
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))
        return scores + gumbel.to(scores)

    return add_noise
