"""The engine around a stand-in of vLLM, for what can fail; `make test-vllm` runs the real one."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest, Sampling
from pipeline.llm.vllm import VllmEngine
from pipeline.records import EncodedImage

OPTIONS = {"dtype": "float32", "tensor_parallel": 1, "gpu_memory": 0.9, "max_context": 64,
           "eager": True, "reproducible": False}  # fmt: skip


class VLLMError(Exception):
    """Of vLLM's own errors none is a ValueError or a RuntimeError."""


class VLLMClientError(VLLMError):
    pass


class VLLMServerError(VLLMError):
    pass


class Llm:
    """As ``vllm.LLM``, with the bundled model's tokenizer; does what a test says."""

    answer = staticmethod(lambda messages: "yes")

    def __init__(self, **arguments):
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=arguments["max_model_len"])
        )

    def get_tokenizer(self):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(TESTBED / "lm")

    def chat(self, conversations, params):
        texts = map(self.answer, conversations)
        return [SimpleNamespace(outputs=[SimpleNamespace(text=text)]) for text in texts]


@pytest.fixture
def engine(monkeypatch):
    """Makes engines whose replies may have so many tokens; what they answer may be set."""

    def module(name, **names):
        made = ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)

    module("vllm", LLM=Llm, SamplingParams=SimpleNamespace)
    module("vllm.exceptions", VLLMError=VLLMError, VLLMClientError=VLLMClientError,
           VLLMServerError=VLLMServerError)  # fmt: skip
    module("vllm.platforms", current_platform=SimpleNamespace(is_cpu=lambda: True))
    module("vllm.sampling_params", StructuredOutputsParams=SimpleNamespace)
    for name in ("VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        monkeypatch.setenv(name, "0")  # the engine sets them, and they are put back

    def make(new=16, answer=None):
        if answer is not None:
            monkeypatch.setattr(Llm, "answer", staticmethod(answer))
        return VllmEngine("m", None, Sampling(1.0, 1.0, new), **OPTIONS)

    return make


def tokens_of(request):
    tokenizer = Llm(max_model_len=64).get_tokenizer()
    return len(tokenizer.apply_chat_template(request.messages, tokenize=True, return_dict=False,
                                             add_generation_prompt=True))  # fmt: skip


def test_a_reply_that_does_not_fit_is_told_before_anything_is_asked(engine):
    """vLLM would cut it without a word."""
    request = ChatRequest("s", "SECRET cup", 0)
    room = 64 - tokens_of(request)
    assert engine(room).generate([request]) == ["yes"]
    with pytest.raises(InputError) as error:
        engine(room + 1, answer=lambda messages: 1 / 0).generate([ChatRequest("s", "", 1), request])
    assert str(error.value) == (
        f"llm.model 'm' has a context of 64 tokens, but a request has {64 - room} and "
        f"llm.max_new_tokens is {room + 1}; lower that, or raise llm.vllm.max_context if the model "
        "allows"
    )


def test_tokens_of_pictures_are_left_for_vllm_to_count(engine):
    def refuse(messages):
        raise VLLMClientError("the prompt with its picture is too long\nmore")

    request = ChatRequest("s", "SECRET " * 99, 0, images=(EncodedImage(b"", "p.png"),))
    with pytest.raises(InputError, match="^vLLM refuses a request: the prompt .* too long$"):
        engine(answer=refuse).generate([request])


@pytest.mark.parametrize(
    "failure",
    [VLLMServerError("core died"), RuntimeError("core died: out of memory"),
     MemoryError("core died")],
)  # fmt: skip
def test_a_failure_of_the_engine_is_told_in_one_line(engine, failure):
    def fail(messages):
        raise failure

    with pytest.raises(InputError, match="^vLLM failed while it answered: core died") as error:
        engine(answer=fail).generate([ChatRequest("s", "SECRET", 0)])
    told = str(error.value)
    assert "lower llm.vllm.gpu_memory" in told and "the same command again" in told
    assert "SECRET" not in told and "\n" not in told
