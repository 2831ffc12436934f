"""Models of others are measured by an entry of params.yaml alone: drawn, judged, counted."""

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file

from pipeline import artifacts
from pipeline.artifacts import TESTBED
from pipeline.diffusion import load_unet
from pipeline.drawing.pipelines import to_kohya
from pipeline.errors import InputError
from pipeline.lora import attach_lora, extract_lora, lora_tensors
from pipeline.records import BenchmarkPrompt, JudgedImage
from pipeline.sources import ModelSource
from pipeline.storage import read_rows, write_rows
from stages import evaluate, sample_benchmark, score_benchmark
from tests.imports import ROOT

THEIRS = {
    "kohya": {"kind": "lora", "path": "theirs/kohya.safetensors"},
    "foreign": {"kind": "lora", "path": "theirs/diffusers.safetensors"},
}


@pytest.fixture(scope="module")
def lora():
    """Tensors of a LoRA that changes pictures clearly, as diffusers names them."""
    torch.manual_seed(0)
    parameters = attach_lora(
        load_unet(ModelSource(str(TESTBED / "sd"))), 2, ["to_q", "to_v"], seed=0
    )
    for parameter in parameters.values():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return lora_tensors(extract_lora(parameters))


@pytest.fixture
def project(lora, default_params, tmp_path, monkeypatch):
    """Two LoRAs of others beside the base model, and a prompt for each benchmark."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    (tmp_path / "theirs").mkdir()
    save_file(to_kohya(lora), tmp_path / "theirs/kohya.safetensors")
    save_file(lora, tmp_path / "theirs/diffusers.safetensors")
    for name in default_params["benchmarks"]:
        prompt = BenchmarkPrompt(name, "benign", 0, 0, f"a red star, {name}", "", "star", "a cup")
        write_rows(artifacts.benchmark_prompts(name), BenchmarkPrompt, [prompt])
    images = default_params["images"] | {"steps": 4}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(default_params | {
        "variants": default_params["variants"] | THEIRS, "images": images,
    }))  # fmt: skip
    return tmp_path


def test_loras_of_others_are_measured_by_config_alone(project):
    found = {}
    for variant in ("base", *THEIRS):
        for stage in (sample_benchmark, score_benchmark):
            stage.main(variant, shard="1/1")
        evaluate.main(variant)
        found[variant] = json.loads(artifacts.evaluation(variant).read_text())["benign"]
    assert {m["clip_score"]["n"] for m in found.values()} == {1}
    assert found["kohya"]["drift"]["value"] > 0.01
    same = pytest.approx(found["foreign"]["drift"]["value"], abs=1e-3)
    assert found["kohya"]["drift"]["value"] == same

    [scores] = artifacts.benchmark_scores("base").glob("*.parquet")
    rows = read_rows(scores, JudgedImage)
    write_rows(scores, JudgedImage, rows[1:])  # a hole that all variants would share
    for variant in ("base", *THEIRS):
        with pytest.raises(InputError, match="base lacks 1 images, first benign row 0"):
            evaluate.main(variant)
