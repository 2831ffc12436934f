import shutil

import pytest

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.llm import ChatRequest, load_engine
from pipeline.prompts import request_pair
from pipeline.testbed.categories import world_categories

CATEGORY = world_categories()[2]


@pytest.fixture(scope="module")
def engine():
    return load_engine("transformers", str(TESTBED / "lm"), None, 1.0, 48, 8)


def test_a_reply_does_not_depend_on_its_batch(engine):
    requests = [request_pair(CATEGORY, c, seed) for seed, c in enumerate(CATEGORY.all_concepts)]
    together = engine.generate(requests)
    assert len(set(together)) > 1
    assert engine.generate(requests[3:4]) == together[3:4]


def test_the_same_seed_gives_the_same_reply_and_another_another(engine):
    ask = [request_pair(CATEGORY, "thornburst", seed) for seed in (1, 1, 2, 3)]
    replies = engine.generate(ask)
    assert replies[0] == replies[1]
    assert len(set(replies)) == 3


def test_messages_are_in_chat_form():
    request = ChatRequest("s", "u", 0)
    assert [m["role"] for m in request.messages] == ["system", "user"]


def test_an_unknown_engine_lists_the_known():
    with pytest.raises(InputError, match="unknown LLM engine 'gpt'; known: transformers"):
        load_engine("gpt", "m", None, 1.0, 8, 1)


def test_a_missing_or_damaged_model_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot load prompts.model .*none"):
        load_engine("transformers", str(tmp_path / "none"), None, 1.0, 8, 1)
    shutil.copytree(TESTBED / "lm", tmp_path / "lm")
    weights = tmp_path / "lm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot load prompts.model .*lm"):
        load_engine("transformers", str(tmp_path / "lm"), None, 1.0, 8, 1)
