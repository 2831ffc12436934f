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
    {"errors"}, {"artifacts", "lifetime", "live", "memory", "progress", "records", "seeds",
                 "section", "workers"},
    {"hold"},
    {"taxonomy"}, {"params", "storage", "policy"},
    {"times"}, {"kept"},
    {"benign_prompts", "cli", "figures", "pixels", "sources", "tables", "user_prompts"}, {"mend"},
    {"diffusion", "judges", "latents", "llm", "lora"},
    {"benchmarks", "encode", "nullspace", "pairs"},
    {"evaluate", "merging", "prompts", "scoring", "training"}, {"drawing"}, {"personal"},
    {"exports", "report", "shipping", "studies"},
    {"cluster", "custody", "generate", "testbed"},
]  # fmt: skip
DOORS = {
    "diffusers": {"diffusion.py", "drawing/pipelines.py", "testbed"}, "peft": {"lora.py"},
    "vllm": {"llm/vllm.py"}, "openai": {"llm/openai.py"}, "py3langid": {"prompts/language.py"},
    "open_clip": {"judges/clip.py", "testbed"}, "nudenet": {"judges/nudenet.py"},
    "ray": {"cluster"}, "torch_fidelity": {"judges/inception.py"},
    "vl_convert": {"report/build.py"},
}  # fmt: skip


def layer_of(dotted):
    part = dotted.split(".")[1]
    return next(k for k, names in enumerate(LAYERS) if part in names)


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_imports_flow_one_way(file):
    dotted = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    if dotted == "pipeline.__init__":
        return
    command = file.stem == "__main__"  # stands above all, and nobody imports it
    for name in direct_imports(file):
        assert not name.endswith("__main__")
        if name == "pipeline" or name.split(".")[1] == dotted.split(".")[1]:
            continue
        assert command or layer_of(name) < layer_of(dotted), f"{dotted} imports {name}"


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
    light = (
        "params",
        "storage",
        "prompts.run",
        "pairs.build",
        "diffusion",
        "drawing.pipelines",
        "drawing.images",
        "drawing.variants",
        "llm.engines",
        "lora",
        "scoring.panel",
        "evaluate.metrics",
        "evaluate.distances",
        "evaluate.compare",
        "evaluate.gate",
        "latents",
        "encode",
        "live",
        "training.processes",
        "benchmarks",
        "figures",
    )
    code = "import sys\n" + "".join(f"import pipeline.{m}\n" for m in light)
    code += "assert not {'torch', 'diffusers', 'open_clip', 'vllm', 'peft'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
