"""vLLM inside this process: batched, with cached prefixes, replies held to a JSON schema.

A request's seed decides its sampling noise. Its logits still depend, in the last bits, on what else
is in the batch; ``reproducible`` switches on vLLM's batch invariance, which ends that on a GPU.
"""

import os
from collections.abc import Sequence

from pipeline.errors import InputError, first_line
from pipeline.llm.chat import ChatRequest, Sampling
from pipeline.llm.transformers import as_text, check_chat_template, check_context


class VllmEngine:
    """A language model loaded by vLLM; sees pictures if the model does.

    Raises InputError when vLLM is not installed, or the model cannot be loaded or has no chat
    template.
    """

    def __init__(
        self, model: str, revision: str | None, sampling: Sampling, *, dtype: str,
        tensor_parallel: int, gpu_memory: float, max_context: int | None, eager: bool,
        reproducible: bool,
    ) -> None:  # fmt: skip
        _set_environment(reproducible)
        try:
            from vllm import LLM
            from vllm.exceptions import VLLMError
            from vllm.platforms import current_platform
        except ImportError as error:
            raise InputError(
                "llm.engine is vllm, which is not installed here; `pip install -r "
                "requirements-gpu.txt`, or serve the model elsewhere and set llm.engine: openai "
                f"({first_line(error)})"
            ) from error
        try:
            self._llm = LLM(
                model=model, revision=revision, tokenizer_revision=revision, dtype=dtype, seed=0,
                tensor_parallel_size=tensor_parallel, gpu_memory_utilization=gpu_memory,
                max_model_len=max_context, enforce_eager=eager, enable_prefix_caching=True,
                # a CPU fails on prompts in chunks when requests have seeds; None: as vLLM likes it
                enable_chunked_prefill=False if current_platform.is_cpu() else None,
                disable_log_stats=False,  # the hit rate of the prefix cache is among them
                generation_config="vllm",  # our sampling settings, not those that come with a model
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError, VLLMError) as error:
            raise InputError(
                f"vLLM cannot load llm.model {model!r}: {first_line(error)}; what it logged above "
                "says more"
            ) from error
        self._tokenizer = self._llm.get_tokenizer()
        check_chat_template(self._tokenizer, model)
        self._name, self._sampling = model, sampling

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Reply to every request, all of them queued at once.

        Raises InputError when vLLM refuses a request, or fails.
        """
        from vllm.exceptions import VLLMClientError, VLLMServerError

        if not requests:
            return []
        self._check_context(requests)
        try:
            outputs = self._llm.chat(
                [r.messages for r in requests], [self._params(r) for r in requests]
            )
        except (ValueError, VLLMClientError) as error:  # such as pictures that the model cannot see
            raise InputError(f"vLLM refuses a request: {first_line(error)}") from error
        except (RuntimeError, MemoryError, VLLMServerError) as error:
            raise InputError(
                f"vLLM failed while it answered: {first_line(error)}; what it logged above says "
                "more. If memory ran out, lower llm.vllm.gpu_memory or llm.vllm.max_context; then "
                "run the same command again"
            ) from error
        return [output.outputs[0].text for output in outputs]

    def _check_context(self, requests: Sequence[ChatRequest]) -> None:
        """vLLM itself would cut a reply that does not fit; tokens of pictures only it can count."""
        for text in (as_text(self._tokenizer, self._name, r) for r in requests if not r.images):
            asked = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            check_context(
                self._name, len(asked), self._sampling.max_new_tokens,
                self._llm.llm_engine.model_config.max_model_len,
                "raise llm.vllm.max_context if the model allows",
            )  # fmt: skip

    @property
    def prefix_hit_rate(self) -> float:
        """Share of all prompt tokens so far that were found in the prefix cache."""
        counts = {m.name: m.value for m in self._llm.get_metrics() if hasattr(m, "value")}
        asked = counts.get("vllm:prefix_cache_queries", 0)
        return counts.get("vllm:prefix_cache_hits", 0) / asked if asked else 0.0

    def _params(self, request: ChatRequest):
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        held = StructuredOutputsParams(json=dict(request.schema)) if request.schema else None
        s = self._sampling
        return SamplingParams(
            temperature=s.temperature, top_p=s.top_p, max_tokens=s.max_new_tokens,
            seed=request.seed, structured_outputs=held,
        )  # fmt: skip


def _set_environment(reproducible: bool) -> None:
    """vLLM reads these once, when it is imported; what the user has set stays."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # the engine in this process: its schedule is then a function of the requests alone
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if reproducible:
        os.environ.setdefault("VLLM_BATCH_INVARIANT", "1")
