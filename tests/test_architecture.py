"""Imports flow one way, heavy libraries have one door, and nothing is pickled."""

import ast
import re
import subprocess
import sys

import pytest

from tests.imports import ROOT, direct_imports

MODULES = sorted((ROOT / "pipeline").rglob("*.py"))
# top to bottom: a module imports only what stands above it
LAYERS = [
    {"errors"}, {"artifacts", "live", "memory", "processes", "progress", "records", "seeds",
                 "section"},
    {"taxonomy", "measures"},
    {"training_params", "study_params", "variant_params", "llm_params", "prompt_params"},
    {"merge_params", "personal_params"}, {"params", "storage", "policy"},
    {"checkpoints", "figures", "user_prompts", "cli", "llm", "lora", "pixels", "judges",
     "safe_latents", "sources", "tables", "benign_prompts", "histograms", "pair_images"},
    {"benchmarks", "vlm_judge", "judged_pairs", "rewriting"},
    {"sampler"}, {"diffusion"}, {"drawing"}, {"variants"},
    {"prompts", "images", "train"}, {"scores", "samples", "latents", "image_imports"},
    {"encode", "benchmark_scores", "pair_scores"},
    {"pairs", "dpo", "metrics", "lowrank", "moments"},
    {"nullspace", "distances", "calibration"}, {"paired"}, {"preparation"}, {"merge_calibration"},
    {"calibrate", "merge"}, {"merge_report"}, {"merge_run"}, {"draws"}, {"noised"},
    {"preference", "train_checks"}, {"experts", "evaluate"}, {"personal"},
    {"report", "shipping", "dial", "study", "scaling", "parts", "exports"},
    {"fronts", "custody"}, {"generate", "testbed"},
]  # fmt: skip
DOORS = {
    "diffusers": {"diffusion.py", "drawing.py", "testbed"}, "peft": {"lora.py"},
    "vllm": {"llm/vllm.py"}, "openai": {"llm/openai.py"}, "py3langid": {"prompts/language.py"},
    "open_clip": {"judges/clip.py", "testbed"}, "nudenet": {"judges/nudenet.py"},
    "torch_fidelity": {"judges/inception.py"}, "vl_convert": {"report/build.py"},
}  # fmt: skip


def layer_of(dotted):
    part = dotted.split(".")[1]
    return next(k for k, names in enumerate(LAYERS) if part in names)


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_imports_flow_one_way(file):
    dotted = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    if dotted == "pipeline.__init__":
        return
    for name in direct_imports(file):
        if name == "pipeline" or name.split(".")[1] == dotted.split(".")[1]:
            continue
        assert layer_of(name) < layer_of(dotted), f"{dotted} imports {name}"


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_heavy_libraries_have_one_door(file):
    inside = file.relative_to(ROOT / "pipeline").as_posix()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else (
            [node.module] if isinstance(node, ast.ImportFrom) else [])  # fmt: skip
        for library in {n.split(".")[0] for n in names} & DOORS.keys():
            guarded = "TYPE_CHECKING" in file.read_text() and node.col_offset == 4
            assert guarded or any(inside.startswith(d) for d in DOORS[library]), (inside, library)


def test_nothing_is_pickled_or_unpickled():
    pattern = re.compile(r"\bpickle\b|torch\.(load|save)\(|allow_pickle=True")
    for folder in ("pipeline", "stages"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not pattern.search(file.read_text()), file


def test_the_data_half_imports_without_any_heavy_library():
    light = ("params", "storage", "prompts.run", "pairs", "metrics", "diffusion", "drawing",
             "llm.engines", "lora", "scores", "images", "evaluate.compare", "evaluate.gate",
             "distances", "latents", "encode", "live", "processes", "benchmarks", "variants",
             "training_params", "merge_params", "study_params", "figures")  # fmt: skip
    code = "import sys\n" + "".join(f"import pipeline.{m}\n" for m in light)
    code += "assert not {'torch', 'diffusers', 'open_clip', 'vllm', 'peft'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
