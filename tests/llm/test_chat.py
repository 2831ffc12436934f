import base64

import pytest

from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest
from pipeline.llm.engines import load_engine
from pipeline.records import EncodedImage

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8}


def test_messages_are_in_chat_form():
    assert ChatRequest("s", "u", 0).messages == [
        {"role": "system", "content": "s"}, {"role": "user", "content": "u"},
    ]  # fmt: skip


def test_pictures_come_before_the_text_in_their_order_and_without_their_names():
    images = tuple(EncodedImage(b, "secret.png") for b in (b"one", b"two"))
    *pictures, text = ChatRequest("s", "u", 0, images=images).messages[1]["content"]
    assert text == {"type": "text", "text": "u"}
    urls = [p["image_url"]["url"].removeprefix("data:image/png;base64,") for p in pictures]
    assert [base64.b64decode(u) for u in urls] == [b"one", b"two"]


def test_an_unknown_engine_lists_the_known():
    with pytest.raises(InputError, match="unknown LLM engine 'gpt'; known: transformers, vllm, op"):
        load_engine("gpt", "m", None, SAMPLING, {})


def test_vllm_that_is_not_installed_says_what_to_do():
    options = {"dtype": "auto", "tensor_parallel": 1, "gpu_memory": 0.9, "max_context": None,
               "eager": True, "reproducible": False}  # fmt: skip
    with pytest.raises(InputError, match="requirements-gpu.txt`, or serve the model elsewhere"):
        load_engine("vllm", "m", "r", SAMPLING, options)


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_a_model_of_a_hub_needs_its_revision(engine):
    with pytest.raises(InputError, match="'org/m' is no folder here; a hub id needs llm.revision"):
        load_engine(engine, "org/m", None, SAMPLING, {})
