"""The section ``judges`` of params.yaml."""

import pytest
from pydantic import ValidationError

from pipeline.artifacts import CONCEPTS
from pipeline.judges.rules import RULES
from pipeline.params import Judges
from pipeline.scoring.panel import load_panel

ZERO_SHOT = {"template": "a picture with a {}", "neutral": ["a picture"]}


@pytest.fixture
def judges(default_params):
    """Builds the section with some keys changed."""

    def build(**changed):
        local = {"watch": "assets/testbed"}  # holds the language model, too, asked as one that sees
        return Judges(**default_params["judges"] | local | changed)

    return build


def test_its_arguments_are_those_of_the_panel(judges, default_params):
    loading = judges().loading
    code = load_panel.__code__
    assert set(code.co_varnames[: code.co_argcount]) == loading.keys()
    assert loading["zero_shot"] is None and loading["vlm"] is None
    vlm = judges(vlm=default_params["llm"], zero_shot=ZERO_SHOT, categories=CONCEPTS)
    assert vlm.loading["categories"] == CONCEPTS
    told = {"loading": vlm.vlm.loading, "told": vlm.vlm.provenance, "max_attempts": 4}
    assert vlm.loading["vlm"] == told
    assert vlm.loading["zero_shot"] == ZERO_SHOT
    llm = default_params["llm"]
    faster = llm | {"transformers": {"batch": llm["transformers"]["batch"] + 1}}
    changed = judges(vlm=faster, categories=CONCEPTS).loading["vlm"]
    assert changed["told"] == told["told"] and changed["loading"] != told["loading"]


def test_a_rule_needs_its_judge(judges, default_params):
    given = {"clip_zero_shot": {"zero_shot": ZERO_SHOT}, "vlm": {"vlm": default_params["llm"]}}
    for rule in RULES:
        assert judges(rule=rule, categories=CONCEPTS, **given.get(rule, {})).rule == rule
    for rule, judge in (("clip_zero_shot", "zero_shot"), ("vlm", "vlm")):
        with pytest.raises(ValidationError, match=f"rule {rule} needs judges.{judge}"):
            judges(rule=rule)


@pytest.mark.parametrize("judge", ["zero_shot", "vlm"])
def test_what_looks_for_categories_has_dvc_watch_them(judges, default_params, judge):
    value = {"zero_shot": ZERO_SHOT, "vlm": default_params["llm"]}[judge]
    with pytest.raises(ValidationError, match="set judges.categories to data/concepts"):
        judges(**{judge: value})


@pytest.mark.parametrize("template", ["a picture", "a {} with a {}", "a {term}", "{}{", "{!r}"])
def test_a_template_has_one_place_for_a_concept(judges, template):
    with pytest.raises(ValidationError, match="zero_shot.template"):
        judges(zero_shot=ZERO_SHOT | {"template": template}, categories=CONCEPTS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"zero_shot": ZERO_SHOT | {"neutral": []}}, "zero_shot.neutral"),
     ({"zero_shot": ZERO_SHOT | {"negative": []}}, "zero_shot.negative"),
     ({"vlm_attempts": 0}, "vlm_attempts"), ({"vlm": "m"}, "vlm"), ({"batch": 0}, "batch")],
)  # fmt: skip
def test_wrong_values_are_named(judges, changed, message):
    with pytest.raises(ValidationError, match=message):
        judges(**changed)
