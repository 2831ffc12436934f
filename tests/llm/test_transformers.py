import json
import shutil

import pytest

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest, Sampling
from pipeline.llm.transformers import TransformersEngine
from pipeline.prompts.template import request_pair
from pipeline.records import EncodedImage
from pipeline.testbed.categories import world_categories

CATEGORY = world_categories()[2]
LM = TESTBED / "lm"


def load(folder=LM, temperature=1.0, top_p=1.0, tokens=48):
    return TransformersEngine(str(folder), None, Sampling(temperature, top_p, tokens), batch=8)


@pytest.fixture(scope="module")
def engine():
    return load()


def asked(*seeds, concept="thornburst"):
    return [request_pair(CATEGORY, concept, seed) for seed in seeds]


def test_a_reply_does_not_depend_on_its_batch(engine):
    requests = [request_pair(CATEGORY, c, seed) for seed, c in enumerate(CATEGORY.all_concepts)]
    together = engine.generate(requests)
    assert len(set(together)) > 1
    assert engine.generate(requests[3:4]) == together[3:4]


def test_the_same_seed_gives_the_same_reply_and_another_another(engine):
    replies = engine.generate(asked(1, 1, 2, 3))
    assert replies[0] == replies[1]
    assert len(set(replies)) == 3


def test_without_temperature_or_with_one_likely_token_seeds_do_not_matter():
    greedy = load(temperature=0).generate(asked(1, 2))
    narrow = load(top_p=1e-6).generate(asked(1, 2))
    assert greedy[0] == greedy[1] == narrow[0] == narrow[1]


def test_pictures_are_refused(engine):
    request = ChatRequest("s", "u", 0, images=(EncodedImage(b"", "p.png"),))
    with pytest.raises(InputError, match="sees no pictures; use vllm or openai"):
        engine.generate([request])


def test_a_request_longer_than_the_context_is_told_without_its_text(engine):
    long = ChatRequest("s", "SECRET " * 600, 0)
    with pytest.raises(InputError, match="context of 512 tokens, but a request has .*48") as error:
        engine.generate([long])
    assert "SECRET" not in str(error.value)


def test_a_missing_or_damaged_model_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot load llm.model .*none"):
        load(tmp_path / "none")
    shutil.copytree(LM, tmp_path / "lm")
    weights = tmp_path / "lm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot load llm.model .*lm"):
        load(tmp_path / "lm")


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    shutil.copytree(LM, tmp_path / "lm")
    (tmp_path / "lm/chat_template.jinja").unlink()
    config = tmp_path / "lm/tokenizer_config.json"
    told = json.loads(config.read_text())
    told.pop("chat_template", None)
    config.write_text(json.dumps(told))
    with pytest.raises(InputError, match="has no chat template.*instruction-tuned"):
        load(tmp_path / "lm")
