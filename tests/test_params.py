import ast
import copy
import os
import subprocess
import sys

import pytest
import yaml

from pipeline.errors import InputError
from pipeline.params import load_params
from tests.imports import ROOT


@pytest.fixture
def load_changed(default_params, tmp_path):
    def load(*keys, value):
        data = copy.deepcopy(default_params)
        data["merge"]["method"] = "co_merge"  # the messages are about it, whatever ships here
        section = data
        for key in keys[:-1]:
            section = section[key]
        section[keys[-1]] = value
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(data))
        return load_params(tmp_path / "params.yaml")

    return load


LOCAL = "assets/testbed/checker"  # in the repository, and watched by nothing
UNWATCHED = [
    (keys, value, f"{'.'.join(keys[:-1])}.*{keys[-1]}.* {LOCAL} is not within .*DVC would see it")
    for *keys, value in (
        ("base_model", "path", LOCAL), ("base_model", "vae", LOCAL), ("llm", "model", LOCAL),
        ("concepts", "file", LOCAL), ("prompts", "source", LOCAL), ("images", "source", LOCAL),
        ("judges", "clip", f"local-dir:{LOCAL}"), ("judges", "inception", LOCAL),
        ("users", "profiles", LOCAL), ("users", "encoder_model", LOCAL),
    )
]  # fmt: skip
BAND = {"clip": f"local-dir:{LOCAL}", "clip_pretrained": None, "batch": 8, "low": 0.0, "high": 1.0}
MODEL = {"engine": "transformers", "model": LOCAL, "watch": LOCAL, "temperature": 0, "top_p": 1,
         "max_new_tokens": 8, "transformers": {"batch": 1}}  # fmt: skip
UNWATCHED += [
    (("prompts", "embeddings"), BAND, f"prompts.embeddings.clip {LOCAL} is not within LICENSE and"),
    (("judges", "vlm"), MODEL, f"judges: .*vlm.model {LOCAL} is not within"),
    (("evaluate_psa", "judge"), MODEL, f"evaluate_psa.judge.model {LOCAL} is not within"),
]


def test_the_default_profile_is_valid():
    assert load_params().variant("co_merge").kind == "lora"


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("experts", "dpo", "bета"), 1, "experts.dpo.bета: there is no such key"),
        (("experts", "dpo", "beta"), -500, "experts.dpo.beta.*greater than 0"),
        (("experts", "lora", "rank"), 0, "experts.lora.rank"),
        (("images", "size"), 63, "images.size.*multiple of 8"),
        (
            ("cluster", "resources", "default"),
            {"cpus": 4, "gpus": 2, "memory": 1, "processes": 4},
            "4 processes share 2 GPUs; give each one",
        ),
        (("cluster", "resources", "default", "shards"), 0, "shards.*greater than or equal to 1"),
        (
            ("merge", "methods"),
            {"tis": {}},
            "unknown merge method 'tis'; known: co_merge, max_magn",
        ),
        (("merge", "method"), "tis", "method 'tis' is not among methods: co_merge, .*regmean"),
        (
            ("merge", "method"),
            "svd",
            "must hold svd: {kind: lora, path: models/merged/svd}",
        ),
        (("variants", "co_merge", "scale"), 0.5, "variants must hold co_merge: .* nothing else"),
        (("variants", "co_merge", "path"), "models/joint", "variants must hold co_merge"),
        (
            ("variants", "base", "scale"),
            0.5,
            "scale is of a LoRA or an adapter; kind: base ",
        ),
        (("dial", "benchmarks"), ["benign", "nowhere"], "dial.benchmarks must be among benchmarks"),
        (("judges", "rule"), "nudity", "judges.rule: Input should be 'safetydpo', 'q16_argmax'"),
        (("variants", "base", "negative_prompt"), "x", "variants.base must be the base model as"),
        (("variants", "joint", "bans"), [], "bans are of a user; kind: lora has none"),
        (("variants", "joint", "hub"), "a/b", "hub and revision are of kind: checkpoint"),
        (
            ("variants", "other"),
            {"kind": "checkpoint", "path": "p", "hub": "a/b"},
            "variants.other: .*a hub id needs its revision",
        ),
        (("variants", "safe_latents", "safe_latents", "beta"), 1, "beta: .* less than 1"),
        (("dial", "scales"), [1.0, 1.0], "scales must rise, with at most three decimals"),
        (("dial", "whole"), ["seen"], "whole: seen is none of benchmarks"),
        (("dial", "scales"), [1 / 3], "scales must rise, with at most three decimals"),
        (("dial", "models", "tis"), "models/merged/tis", "dial.models.tis needs models/merged/tis"),
        (("merge", "methods", "ties", "strength"), float("inf"), "ties.strength.*finite"),
        (("experts", "optim", "weight_decay"), float("inf"), "optim.weight_decay: .*finite"),
        (("experts", "dpo", "sft_weight"), float("nan"), "dpo.sft_weight: .*finite"),
        (("experts", "dpo", "retention"), float("inf"), "dpo.retention: .*finite"),
        (("experts", "dpo", "retention"), -1, "dpo.retention: .*greater than or equal to 0"),
        (("variants", "joint", "scale"), float("inf"), "variants.joint.scale: .*finite"),
        (("images", "guidance"), float("inf"), "images.guidance: .*finite"),
        (("pairs", "max_similarity"), float("nan"), "pairs.max_similarity: .*finite"),
        (("llm", "temperature"), float("nan"), "llm.temperature: .*finite"),
        (("merge", "methods", "ties"), None, "merge.methods.ties is empty; {} takes the defaults"),
        (("merge", "methods", "svd"), {}, "merge.methods.svd.rank: Field required"),
        (("merge", "methods", "ties", "density"), 0, "merge.methods.ties.density.*greater than 0"),
        (("merge", "weights"), {"hat": 1}, "merge.weights names 'hat', no category"),
        (("merge", "weights"), {"hate": -1}, "merge.weights.hate.*greater than or equal to 0"),
        (("taxonomy", "categories"), [], "taxonomy.categories"),
        (("taxonomy", "categories"), ["Self Harm"], "taxonomy.categories.0.*pattern"),
        (("taxonomy", "categories"), ["hate", "hate"], "lists a name twice"),
        (("base_model", "vae_revision"), "abc", "vae_revision needs a vae"),
        (("llm", "engine"), "gpt", "llm.engine: Input should be 'transformers', 'vllm' or 'open"),
        (("llm", "vllm"), None, "llm.vllm must be there whatever the engine"),
        (("llm", "transformers"), None, "engine transformers needs the section llm.transformers"),
        (("llm", "top_p"), 0, "llm.top_p.*greater than 0"),
        (("llm", "openai", "retries"), -1, "llm.openai.retries"),
        (("concepts", "val"), 0.95, "val and test_unseen must leave some concepts to train on"),
        (("prompts", "min_words"), 31, "min_words must not exceed max_words"),
        (("prompts", "near_duplicate"), 1.0, "prompts.near_duplicate.*less than 1"),
        (("experts", "lora", "dora"), True, "dora needs null_damping: null and row_share: 1"),
        (("latents", "flip"), True, "flip needs views: 2 or more"),
        (("latents", "views"), 2, "need a latents.crop smaller than images.size"),
        (("latents", "crop"), 72, r"latents.crop \(72\) must not exceed images.size \(64\)"),
        (("pairs", "min_similarity"), 0.99, "min_similarity must be below"),
        (("experts", "optim", "checkpoint_every"), 45, "multiple of log_every"),
        (("merge", "methods"), {"co_merge": {}}, "variants.average needs models/merged/average"),
        (("merge", "calibration_prompts"), 99, "must not exceed pairs.min_pairs"),
        (("variants",), {"x": {"kind": "base", "path": "p"}}, "must hold 'base'"),
        *UNWATCHED,
    ],
)
def test_a_wrong_value_is_named_by_its_key(load_changed, keys, value, message):
    with pytest.raises(InputError, match=message):
        load_changed(*keys, value=value)


def test_a_kind_of_field_is_defined_once():
    """Neither under two names nor one name twice."""
    modules = [ROOT / "pipeline/section.py", *(ROOT / "pipeline/params").glob("*.py")]
    kinds = [
        (ast.unparse(node.targets[0]), ast.unparse(node.value)) for module in modules
        for node in ast.parse(module.read_text()).body if isinstance(node, ast.Assign)
    ]  # fmt: skip
    assert len(kinds) > 5
    for same in zip(*kinds, strict=True):
        assert len(set(same)) == len(same)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="must hold sections, got list"):
        load_params(tmp_path / "params.yaml")


def test_no_params_file_says_where_to_run(tmp_path):
    with pytest.raises(InputError, match="root of the repository"):
        load_params(tmp_path / "params.yaml")


def test_params_are_frozen():
    with pytest.raises(ValueError):
        load_params().seed = 1


def test_an_unknown_variant_lists_the_known():
    with pytest.raises(InputError, match="unknown variant 'tis'.*base"):
        load_params().variant("tis")


def test_the_file_is_checked_by_a_command_before_a_run(tmp_path, default_params):
    """DVC runs no stage for a key that none of them names: an up-to-date tree would say nothing."""
    command = [sys.executable, "-m", "pipeline.params"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def check(params):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )  # fmt: skip

    assert check(default_params).returncode == 0
    wrong = copy.deepcopy(default_params)
    wrong["merge"]["null_dampin"] = 0.2
    done = check(wrong)
    assert done.returncode == 1 and done.stderr == (
        "params: params.yaml: merge.null_dampin: there is no such key; correct its name, or remove "
        "it\n"
    )
    assert "python -m pipeline.params" in (ROOT / "Makefile").read_text()
