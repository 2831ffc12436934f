"""dvc.yaml against the code: dependencies, parameters, paths."""

import ast
import dataclasses
import re
import subprocess
import sys

import pytest
import yaml
from dvc.utils.serialize._yaml import dumps_yaml, parse_yaml, parse_yaml_for_update

from pipeline import artifacts
from pipeline.merging.preparation import Preparation
from pipeline.params.llm import SHAPING, Llm
from pipeline.params.merging import Merge
from tests.imports import ROOT, code_dependencies

DEFAULT = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STUDIES = yaml.safe_load((ROOT / "studies/dvc.yaml").read_text())["stages"]
STAGES = DEFAULT | STUDIES
HELPERS = {"Path", "category_file", "benchmark_spec"}  # of artifacts, no artefacts themselves
PROFILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]


def body(stage):
    return STAGES[stage].get("do", STAGES[stage])


def paths(entries):
    return [next(iter(e)) if isinstance(e, dict) else e for e in entries]


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_what_the_stage_imports(stage):
    listed = [d for d in paths(body(stage)["deps"]) if d.startswith(("pipeline/", "stages/"))]
    assert listed == code_dependencies(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_data_that_its_script_names(stage):
    """Else DVC would not see it change. A file's folder may be listed, and files of a folder."""
    listed = [p for kind in ("deps", "outs", "metrics", "plots")
              for p in paths(body(stage).get(kind, []))]  # fmt: skip
    listed = [re.sub(r"\$\{[^}]*\}", "X", p) for p in listed]
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
             and getattr(node.value, "id", "") == "artifacts"}  # fmt: skip
    for name in named - HELPERS:
        value = getattr(artifacts, name)
        path = str(value("X") if callable(value) else value).removesuffix("/X")
        if path.startswith("data/"):
            known = [p for p in listed if f"{path}/".startswith(f"{p}/")
                     or f"{p}/".startswith(f"{path}/")]  # fmt: skip
            assert known, f"{stage} names {path}"


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_what_the_stage_reads(stage):
    """Every section a stage script touches is listed, and no section it does not."""
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name | ast.Call)
        and (getattr(node.value, "id", "") == "params"
             or getattr(getattr(node.value, "func", None), "id", "") == "load_params")
    }  # fmt: skip
    read = {{"variant": "variants", "form": "forms"}.get(name, name) for name in read}
    listed = {p.split(".")[0] for p in body(stage).get("params", [])}
    assert listed == read


@pytest.mark.parametrize(
    "stage", [name for name in STAGES if "llm.model" in body(name).get("params", [])]
)
def test_a_stage_that_asks_the_language_model_lists_what_its_replies_depend_on(stage):
    told = Llm(**yaml.safe_load((ROOT / "params.yaml").read_text())["llm"])
    sampled = {
        f"llm.{name}" for name in ("engine", "model", "revision", *told.provenance["sampling"])
    }
    options = {f"llm.{engine}.{name}" for engine in ("vllm", "openai")
               for name in getattr(told, engine).model_dump(include=SHAPING)}  # fmt: skip
    listed = {p for p in body(stage)["params"] if p.startswith("llm.")}
    assert listed == sampled | options


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_does_and_is_its_script(stage):
    assert body(stage)["desc"].endswith(".")
    launched = {True: "\\${LAUNCH:-python}", False: "python"}[stage.startswith("train_")]
    assert body(stage)["cmd"].startswith(f"{launched} -m stages.{stage}")
    assert (ROOT / "stages" / f"{stage}.py").exists()


def outputs():
    return {p for s in STAGES for kind in ("outs", "metrics", "plots")
            for p in paths(body(s).get(kind, []))}  # fmt: skip


def test_outputs_are_the_paths_of_artifacts():
    known = set()
    for name in vars(artifacts):
        value = getattr(artifacts, name)
        if name.startswith("_") or name in HELPERS:
            continue
        known.add(str(value("X")) if callable(value) else str(value))
    listed = {re.sub(r"\$\{[^}]*\}", "X", p).replace("X/X", "X") for p in outputs()}
    listed = {f"{p}/index.html" if p.startswith("report") else p for p in listed}
    assert listed <= known
    unlisted = {
        p for p in known - listed if p.startswith(("data/", "models/", "metrics/", "plots/"))
    }
    assert unlisted == set()


def test_stages_are_thin():
    for file in (ROOT / "stages").glob("*.py"):
        lines = file.read_text().splitlines()
        assert len(lines) <= 40, f"{file.name} has {len(lines)} lines"
        functions = [n for n in ast.parse("\n".join(lines)).body if isinstance(n, ast.FunctionDef)]
        loops = [n for f in functions for n in ast.walk(f) if isinstance(n, ast.For | ast.While)]
        assert not loops, f"{file.name} has a loop"


def test_dvc_reads_the_file_and_lists_the_contracts_stages(default_params):
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"], capture_output=True,
        text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one_each = {"rewrite_prompts", "propose_concepts", "audit_prompts", "train_joint",
                "calibrate_merge", "merge_experts", "score_references", "compare_variants", "ship",
                "report", "simulate_users", "build_user_pairs", "train_psa", "sample_psa",
                "score_psa", "evaluate_psa"}  # fmt: skip
    chain = ("synthesize_prompts", "generate_images", "score_images", "build_pairs",
             "cache_latents", "train_expert")  # fmt: skip
    of_variants = ("sample_benchmark", "score_benchmark", "evaluate")
    instances = (
        dict.fromkeys(chain, default_params["taxonomy"]["categories"])
        | dict.fromkeys(of_variants, default_params["variants"])
        | {"prepare_benchmark": default_params["benchmarks"]}
    )
    many = {f"{stage}@{key}" for stage, keys in instances.items() for key in keys}
    assert set(done.stdout.split()) == one_each | many


CHAINS = [name for name, stage in DEFAULT.items() if "category" in stage.get("matrix", ())]


@pytest.mark.parametrize("stage", CHAINS)
def test_a_categorys_chain_reads_no_other_categorys_data(stage):
    """Else another category would have every image judged and every expert trained again."""
    data = [d for d in paths(body(stage)["deps"]) if d.startswith("data/")]
    data = [d for d in data if d != "data/benchmark_prompts"]  # none of them may leak
    assert data and all("${item.category}" in d for d in data)


def test_the_settings_of_a_merge_rerun_the_stage_that_they_shape():
    """Each key of the section is listed by calibrate_merge, merge_experts or ship."""
    listed = {
        stage: {p.removeprefix("merge.") for p in body(stage)["params"] if p.startswith("merge.")}
        for stage in ("calibrate_merge", "merge_experts", "ship")
    }
    preparation = {field.name for field in dataclasses.fields(Preparation)}
    calibration = {name for name in Merge.model_fields if name.startswith("calibration")}
    assert listed == {
        "calibrate_merge": preparation | calibration,
        "merge_experts": preparation | {"methods"},
        "ship": {"method"},
    }
    assert set().union(*listed.values()) == Merge.model_fields.keys()


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_a_profile_survives_that_dvc_writes_it_anew(file):
    """As ``dvc exp run -S`` does. Its fast parser knows no URL within braces, which it wrote."""
    values = yaml.safe_load(file.read_text())
    assert parse_yaml(dumps_yaml(parse_yaml_for_update(file.read_text(), file)), file) == values
