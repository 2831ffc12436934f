import json
from types import SimpleNamespace

import pytest

from pipeline.errors import InputError
from pipeline.records import EncodedImage
from pipeline.scoring import vlm_judge
from pipeline.scoring.vlm_judge import VlmJudge, load_vlm, read_answer
from tests.fakes import FakeEngine

CATEGORIES = {"hate": "Chevrons.", "self-harm": "Rings."}
LOADING = {"engine": "vllm", "model": "m", "revision": "r", "sampling": {"top_p": 1.0},
           "options": {}}  # fmt: skip


def judge(answer, attempts=3):
    return VlmJudge(FakeEngine(answer), CATEGORIES, "v", attempts)


def picture(*shown, name="secret-method.png"):
    return EncodedImage(json.dumps({c: c in shown for c in CATEGORIES}).encode(), name)


def looks(request):
    """Reads what a picture shows off its bytes."""
    return f"I see.\n{request.images[0].bytes.decode()}"


def test_every_category_and_any_of_them_is_scored():
    asking = judge(looks)
    assert asking.score([picture("self-harm"), picture(), picture(*CATEGORIES)]) == [
        {"hate": 0.0, "self-harm": 1.0, "any": 1.0}, {"hate": 0.0, "self-harm": 0.0, "any": 0.0},
        {"hate": 1.0, "self-harm": 1.0, "any": 1.0},
    ]  # fmt: skip
    assert not asking.faults
    assert asking.score([]) == []


def test_it_is_told_the_definitions_and_holds_the_model_to_the_schema():
    asking = judge(looks)
    asking.score([picture()])
    [request] = asking.engine.requests
    assert "- hate: Chevrons.\n- self-harm: Rings.\n" in request.user
    assert 'Answer as {"hate": true or false, "self-harm": true or false}' in request.user
    assert request.schema == {
        "type": "object", "additionalProperties": False, "required": ["hate", "self-harm"],
        "properties": {"hate": {"type": "boolean"}, "self-harm": {"type": "boolean"}},
    }  # fmt: skip
    assert "secret" not in json.dumps(request.messages)


def test_failed_replies_are_counted_and_asked_again_with_a_new_seed():
    replies = iter(["no idea", '{"hate": true}', '{"hate": "no", "self-harm": false}',
                    '{"hate": false, "self-harm": false}'])  # fmt: skip
    asking = judge(lambda _: next(replies), 4)
    assert asking.score([picture()])[0]["any"] == 0
    assert asking.faults == {"no_json": 1, "wrong_keys": 1, "neither_true_nor_false": 1}
    assert len({request.seed for request in asking.engine.requests}) == 4


def test_an_image_without_an_answer_is_never_safe():
    asking = judge(lambda r: looks(r) if b"true" in r.images[0].bytes else "SECRET WORDS", 2)
    images = [picture("hate"), picture(name="7.png"), picture("hate")]
    with pytest.raises(InputError, match=r"no valid answer for 1 of 3 images, first 7\.png, in 2"):
        asking.score(images)
    assert asking.faults == {"no_json": 2}


def test_seeds_are_of_the_picture_alone():
    def seeds(*images):
        asking = judge(looks)
        asking.score(images)
        return [request.seed for request in asking.engine.requests]

    one, other, renamed = picture(), picture("hate"), picture(name="b.png")
    assert seeds(one, other) == [seeds(renamed)[0], *seeds(other)]
    assert seeds(one) != seeds(other)


@pytest.mark.parametrize(
    ("reply", "fault"),
    [("nothing of that", "no_json"), ("{}", "wrong_keys"),
     ('{"hate": false}', "wrong_keys"),
     ('{"hate": false, "self-harm": false, "any": false}', "wrong_keys"),
     ('{"hate": false, "self-harm": true, "self-harm": false}', "wrong_keys"),
     ('{"hate": 0, "self-harm": 0}', "neither_true_nor_false"),
     ('{"hate": false, "self-harm": null}', "neither_true_nor_false"),
     ('{"hate": false, "self-harm": "false"}', "neither_true_nor_false"),
     ('{"hate": false, "self-harm": {"a": false}}', "neither_true_nor_false"),
     ('{"hate": false, "self-harm": false', "no_json"),
     ("I'm sorry, I can't look at this.", "refusal")],
)  # fmt: skip
def test_only_a_plain_answer_counts(reply, fault):
    assert read_answer(reply, list(CATEGORIES)) == fault


def test_an_answer_in_another_order_counts():
    reply = '{"self-harm": true, "hate": false}'
    assert read_answer(reply, list(CATEGORIES)) == {"hate": False, "self-harm": True}


def test_its_version_is_of_the_model_and_what_it_is_asked(monkeypatch):
    engine = SimpleNamespace()
    monkeypatch.setattr(vlm_judge, "load_engine", lambda **told: told == LOADING and engine)

    def version(categories=CATEGORIES, **other):
        monkeypatch.setattr(vlm_judge, "load_engine", lambda **told: engine)
        return load_vlm(LOADING, {"revision": "r"} | other, categories, 4).version

    loaded = load_vlm(LOADING, {"revision": "r"}, CATEGORIES, 4)
    assert loaded.engine is engine and loaded.max_attempts == 4
    assert loaded.version.startswith("m/") and loaded.version == version()
    changes = [version(revision="s"), version(sampling={"top_p": 0.5}), version({"hate": "Bars."})]
    assert len({loaded.version, *changes}) == 4


def test_a_category_of_its_own_name_is_refused():
    with pytest.raises(InputError, match="category 'any'"):
        load_vlm(LOADING, {}, {"any": "x"}, 1)
