import ast
import re

import pytest

from pipeline.artifacts import LORA_FILE
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.judges.nudenet import CLASSES
from pipeline.shipping.model_card import BOUNDARY, FUSED, KOHYA_FILE, model_card
from pipeline.sources import ModelSource

CATEGORIES = ["hate", "self-harm"]
JUDGES = {"clip": "a/clip/111", "nudenet": "3.4", "q16": "222@a/clip/111"}
HUB = ModelSource("org/model", "abc123")
SAMPLER = Sampler("ddim", 40, 7.5, 512)
EXPOSED = sum(name.endswith("EXPOSED") for name in CLASSES)


def estimate(value, low, high, n):
    return {"value": value, "low": low, "high": high, "n": n}


def evaluation():
    return {
        "mild": {"ip": estimate(0.0, 0.0, 0.0567, 64), "cmmd": estimate(0.68, 0.402, 0.915, 64),
                 "clip_score": estimate(94.281, 93.95, 94.61, 64),
                 "drawn": estimate(0.9531, 0.871, 0.9839, 65),
                 "over_block": estimate(0.0469, 0.0161, 0.129, 61)},
        "hard": {"ip": estimate(0.0143, 0.0039, 0.0506, 140),
                 "ip/hate": estimate(0.05, 0.0009, 0.2361, 20),
                 "ip/self-harm": estimate(0.1, 0.0279, 0.301, 17),
                 "clip_score": estimate(46.47, 44.27, 48.84, 140)},
    }  # fmt: skip


def base_evaluation():
    return {
        benchmark: {
            name: e | {"high": e["high"] + 0.011, "n": e["n"] + 1000}
            for name, e in metrics.items()
        }
        for benchmark, metrics in evaluation().items()
    }  # fmt: skip


def provenance():
    return {
        "categories": CATEGORIES, "method": "co_merge", "base_model": "org/model",
        "base_revision": "abc123", "recipe": {"strength": 1.22, "activation": "count"},
        "preparation": {"null_damping": 0.13, "layers": ["*"]}, "seed": 77,
        "expert_scale": {"hate": 0.8009, "self-harm": 1.2102},
        "experts": {
            c: {"recipe_hash": f"recipe{k}", "data": {c: f"digest{k}"},
                "metrics": {"pairs": 40 + k}}
            for k, c in enumerate(CATEGORIES)
        },
    }  # fmt: skip


def card(**changes):
    given = {
        "provenance": provenance(), "rank": 16, "sampler": SAMPLER, "base": HUB,
        "evaluation": evaluation(),
        "base_evaluation": base_evaluation(), "rule": "safetydpo", "judges": JUDGES,
    } | changes  # fmt: skip
    return model_card(given.pop("provenance"), given.pop("rank"), **given)


def test_every_metric_of_both_models_has_its_interval_and_n():
    parts = re.split(r"\*\*Benchmark `(\w+)`\*\*", card())[1:]
    tables = {
        name: re.findall(r"^\| (.+?) \| (.+?) \| (\d+) \| (.+?) \| (\d+) \|$", part, re.M)
        for name, part in zip(parts[::2], parts[1::2], strict=True)
    }
    assert tables == {
        "hard": [
            ("IP", "0.014 (0.004–0.062)", "1140", "0.014 (0.004–0.051)", "140"),
            ("IP, hate", "0.050 (0.001–0.247)", "1020", "0.050 (0.001–0.236)", "20"),
            ("IP, self-harm", "0.100 (0.028–0.312)", "1017", "0.100 (0.028–0.301)", "17"),
            ("CLIPScore", "46.47 (44.27–48.85)", "1140", "46.47 (44.27–48.84)", "140"),
        ],
        "mild": [
            ("IP", "0.000 (0.000–0.068)", "1064", "0.000 (0.000–0.057)", "64"),
            ("CLIPScore", "94.28 (93.95–94.62)", "1064", "94.28 (93.95–94.61)", "64"),
            ("drawn", "0.953 (0.871–0.995)", "1065", "0.953 (0.871–0.984)", "65"),
            ("over-block", "–", "1061", "0.047 (0.016–0.129)", "61"),
            ("CMMD", "0.680 (0.402–0.926) (other seeds)", "1064", "0.680 (0.402–0.915)", "64"),
        ],
    }


def test_it_says_how_the_lora_was_made():
    text = card()
    for said in ("hate, self-harm", "revision `abc123`", "`co_merge`", "multiplied by 1.22",
                 "- `preparation.null_damping`: 0.13", '- `recipe.activation`: "count"',
                 "- `seed`: 77", "| hate | 40 | `recipe0` | `digest0` | 0.8009 |",
                 "| self-harm | 41 | `recipe1` | `digest1` | 1.2102 |"):  # fmt: skip
        assert said in text, said


def test_it_says_what_the_numbers_are_worth():
    limits = card().split("## Limits")[1]
    for said in (f"**{BOUNDARY}**", "smallest n above is 17", "arXiv 2308.01508",
                 "0.100 (0.028–0.301), n = 17, of self-harm on `hard`",
                 "0.047 (0.016–0.129), n = 61, on `mild`"):  # fmt: skip
        assert said in limits, said
    assert "measures by itself" not in limits
    made = provenance() | {"categories": [*CATEGORIES, "violence"]}
    assert "No benchmark measures by itself**: violence.\n" in card(provenance=made)
    only, base = evaluation()["hard"], base_evaluation()["hard"]
    text = card(evaluation={"hard": only}, base_evaluation={"hard": base})
    assert "Over-blocking was not measured" in text and "over-block" not in text


@pytest.mark.parametrize(("rule", "verdict", "source"), [
    ("safetydpo", "Q16 scores inappropriate above not inappropriate, or NudeNet scores one of the "
     "rule's 2 classes above 0.\n", "SafetyDPO"),
    ("q16_argmax", "Q16 scores inappropriate above not inappropriate.\n", "Schramowski"),
    ("esd", f"NudeNet scores one of the rule's {EXPOSED} classes above 0.\n", "ESD"),
    ("clip_zero_shot", "CLIP finds a category's concepts nearer than neutral texts by more than "
     "0.\n", "Radford"),
    ("vlm", "a model that sees the image says that it shows a category.\n", "ours"),
])  # fmt: skip
def test_the_judges_and_their_rule_are_named(rule, verdict, source):
    text = card(rule=rule, judges=JUDGES | {"zero_shot": "333", "vlm": "444"})
    assert f"`{rule}`" in text and source in text
    assert f"an image is inappropriate when {verdict}" in text
    for judge, version in JUDGES.items():
        assert f"- {judge}: `{version}`\n" in text


def test_the_hub_can_read_the_front_matter():
    from huggingface_hub import ModelCard

    data = ModelCard(card()).data
    assert (data.base_model, data.library_name) == ("org/model", "diffusers")
    assert {"lora", "text-to-image"} <= set(data.tags)
    read = {(r.dataset_name, r.metric_type): (r.metric_value, r.metric_args)
            for r in data.eval_results}  # fmt: skip
    given = {
        (benchmark, name): (e["value"], {k: e[k] for k in ("low", "high", "n")})
        for benchmark, metrics in evaluation().items() for name, e in metrics.items()
    }  # fmt: skip
    assert read == given
    # a folder is no id of the Hub
    assert ModelCard(card(base=ModelSource("some/folder"))).data.base_model is None


def test_the_snippet_is_for_the_base_model_as_it_was_used():
    def snippet(base):
        return re.search(r"```python\n(.*?)```", card(base=base), re.S)[1]

    local = snippet(ModelSource("some/folder"))
    assert '"some/folder"' in local and "revision" not in local and "vae" not in local
    assert f'weight_name="{LORA_FILE}"' in local
    other = snippet(ModelSource("org/model", "abc", "org/vae", "def"))
    assert 'AutoencoderKL.from_pretrained("org/vae", revision="def")' in other
    assert '"org/model", revision="abc", vae=vae' in other
    for code in (local, other):
        ast.parse(code)


def test_files_are_listed_as_shipped():
    plain, whole = card(), card(fused=True)
    assert all(f"- `{name}`: " in plain for name in (LORA_FILE, KOHYA_FILE))
    assert FUSED + "/" not in plain and f"- `{FUSED}/`: " in whole
    assert "of rank 16\n" in plain


def test_equal_arguments_give_equal_cards_in_whatever_order():
    def turned(value):
        if not isinstance(value, dict):
            return value
        return {k: turned(v) for k, v in reversed(value.items())}

    again = card(provenance=turned(provenance()), evaluation=turned(evaluation()),
                 base_evaluation=turned(base_evaluation()), judges=turned(JUDGES))  # fmt: skip
    assert again == card() and again.endswith(".\n")


@pytest.mark.parametrize(("change", "message"), [
    ({"evaluation": {}}, r"the evaluation of the LoRA lacks 9 metrics .* first hard/clip_score"),
    ({"base_evaluation": {"hard": base_evaluation()["hard"]}},
     r"of the base model lacks 3 metrics .* first mild/clip_score .*`dvc repro evaluate`"),
    ({"evaluation": {}, "base_evaluation": {}}, "the evaluations hold no benchmark"),
    ({"provenance": {"categories": ["hate"]}},
     r"the LoRA's provenance lacks method, .*experts, expert_scale; it has categories\. Only"),
    ({"provenance": provenance() | {"recipe": {}}}, "its recipe, lacks strength; it has nothing"),
    ({"provenance": provenance() | {"expert_scale": {"hate": 1.0}}},
     "its expert_scale, lacks self-harm; it has hate"),
    ({"provenance": provenance() | {"experts": {"hate": {"data": {}}}}},
     "provenance of expert hate lacks metrics, recipe_hash; it has data"),
    ({"rule": "x"}, "unknown rule 'x'; known: safetydpo, "),
    ({"judges": {"clip": "a", "q16": "b"}},
     "needs the judges clip, q16, nudenet, and the versions of nudenet are not"),
])  # fmt: skip
def test_what_is_missing_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        card(**change)


def test_the_card_says_how_images_were_drawn_and_what_settings_were_chosen_on():
    text = card(chosen_on=["heldout", "benign"], license="mit")
    assert "scheduler `ddim`, 40 steps, guidance\n7.5, 512 x 512 pixels" in text
    assert "Settings were chosen on these very benchmarks** (heldout, benign)" in text
    assert "license: mit" in text
    assert "very benchmarks" not in card() and "license:" not in card()


def test_what_the_base_model_is_not_measured_on_has_no_interval():
    lines = [line for line in card().splitlines() if line.startswith("| ")]
    cmmd = [line for line in lines if line.startswith("| CMMD")]
    assert all("(other seeds)" in line or "| – |" in line for line in cmmd)
    assert all("| – |" in line for line in lines if line.startswith("| over-block"))
