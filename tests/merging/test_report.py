import json

import pytest
import torch

from pipeline.lora import load_lora
from pipeline.merging.lowrank import scale_lora
from pipeline.merging.methods import MERGE_METHODS, MergeRecipe, merge_experts
from pipeline.merging.preparation import Preparation
from pipeline.merging.report import (
    describe_experts,
    describe_method,
    inner_products,
    interference,
    norm,
    rows_by_layer,
)
from pipeline.merging.run import MergeOutputs, merge_and_save
from tests.merging.examples import calibration_of, layer, random_expert


@pytest.fixture
def experts():
    return {k: random_expert(n) for n, k in enumerate("abc")}


def test_interference_by_hand():
    # both change 2 of 3 entries that either changes, once with opposite signs
    experts = {"a": {"l": layer([[1, 2], [0, 3]])}, "b": {"l": layer([[1, -1], [0, 0]])}}
    assert interference(experts) == [{
        "expert": "a", "other": "b", "cosine": round(-1 / (14 * 2) ** 0.5, 4),
        "overlap": round(2 / 3, 4), "sign_conflict": 0.5,
    }]  # fmt: skip


def test_norms_and_products_are_those_of_the_dense_deltas(experts):
    a, b = (torch.cat([v.delta.flatten() for _, v in sorted(experts[k].items())]) for k in "ab")
    assert norm(experts["a"]) == pytest.approx(float(a.norm()), rel=1e-5)
    assert inner_products(experts["a"], experts["b"]) == pytest.approx(float(a @ b), rel=1e-4)


def test_rows_won_add_up_to_the_rows_that_are_written_to(experts):
    silent = {
        name: {k: type(v)(v.down, v.up * (torch.arange(6) > 1)[:, None]) for k, v in lora.items()}
        for name, lora in experts.items()
    }
    for given, written in ((experts, 1.0), (silent, 4 / 6)):
        rows = rows_by_layer(given, calibration_of(given).winners, "count")
        for name in given["a"]:
            won = sum(row["rows_won"] for row in rows if row["layer"] == name)
            assert won == pytest.approx(written, abs=2e-3)
        described = describe_experts(given, dict.fromkeys(given, 1.0), rows, interference(given))
        total = sum(e["rows_won"] for e in described["experts"].values())
        assert total == pytest.approx(written, abs=2e-3)


def test_what_a_method_kept_of_each_expert(experts):
    average = merge_experts(experts, MergeRecipe("average"))
    alone = merge_experts({"a": experts["a"]}, MergeRecipe("average"))
    assert describe_method({"a": experts["a"]}, alone, 1.0)["expert_kept"] == {"a": 1.0}
    kept = describe_method(experts, average, 1.0)
    whole = describe_method(experts, merge_experts(experts, MergeRecipe("weighted")), 1.0)
    assert kept["norm"] == pytest.approx(whole["norm"] / 3, abs=1e-3)
    assert kept["expert_kept"]["b"] == pytest.approx(whole["expert_kept"]["b"] / 3, abs=1e-3)
    assert kept["rank"] == 6 and kept["energy_kept"] == 1.0
    doubled = describe_method(experts, merge_experts(experts, MergeRecipe("weighted", 2.0)), 2.0)
    assert doubled["expert_kept"] == whole["expert_kept"]
    assert doubled["norm"] == pytest.approx(2 * whole["norm"], abs=1e-3)


@pytest.fixture
def outputs(tmp_path):
    return MergeOutputs(tmp_path / "merged", tmp_path / "merge.json", tmp_path / "rows.csv",
                        tmp_path / "pairs.csv", tmp_path / "map.svg")  # fmt: skip


def run(experts, outputs, methods=("co_merge", "average", "regmean")):
    made = {"base_model": "m", "base_revision": "r", "recipe_hash": "h"}
    merge_and_save(
        experts, dict.fromkeys(experts, made), calibration_of(experts), Preparation(),
        [MergeRecipe(m) for m in methods], 0, outputs,
    )  # fmt: skip


def test_everything_of_a_merge_is_written(experts, outputs):
    run(experts, outputs)
    metrics = json.loads(outputs.metrics.read_text())
    assert metrics["methods"].keys() == {"co_merge", "average", "regmean"}
    assert metrics["experts"].keys() == {"a", "b", "c"}
    assert metrics["interference"].keys() == {"cosine", "overlap", "sign_conflict"}
    lora, provenance = load_lora(outputs.merged / "co_merge")
    again = merge_experts(experts, MergeRecipe("co_merge"), calibration_of(experts)).lora
    assert all(torch.allclose(lora[k].delta, again[k].delta) for k in again)
    assert provenance["method"] == "co_merge" and provenance["recipe"]["strength"] == 1.0
    assert provenance["categories"] == ["a", "b", "c"] == list(provenance["experts"])
    assert provenance["preparation"]["layers"] == ["*"]
    assert len(outputs.rows.read_text().splitlines()) == 1 + 2 * 3  # layers x experts
    assert len(outputs.pairs.read_text().splitlines()) == 1 + 3
    assert "x.to_q" in outputs.figure.read_text()  # text stays text


def test_equal_merges_are_equal_files_and_stale_methods_go(experts, outputs):
    contents = []
    for methods in (tuple(MERGE_METHODS.keys() - {"svd"}), ("average", "co_merge")) * 2:
        run(experts, outputs, methods)
        contents.append({p.relative_to(outputs.merged.parent): p.read_bytes()
                         for p in outputs.merged.parent.rglob("*") if p.is_file()})  # fmt: skip
    assert contents[1] == contents[3]
    assert {p.name for p in outputs.merged.iterdir()} == {"average", "co_merge"}


def test_an_idle_expert_has_no_cosine(experts):
    pairs = interference({"a": experts["a"], "b": scale_lora(experts["b"], 0.0)})
    assert pairs[0]["cosine"] == pairs[0]["overlap"] == pairs[0]["sign_conflict"] == 0.0


def test_one_expert_is_merged_and_described_too(experts, outputs):
    run({"a": experts["a"]}, outputs)
    lora, _ = load_lora(outputs.merged / "regmean")
    assert all(torch.allclose(lora[k].delta, v.delta, atol=1e-6) for k, v in experts["a"].items())
    assert outputs.pairs.read_text() == "expert,other,cosine,overlap,sign_conflict\n"


def test_a_rank_that_keeps_little_is_warned_of(experts, outputs, caplog):
    made = {"base_model": "m", "base_revision": "r"}
    merge_and_save(
        experts, dict.fromkeys(experts, made), calibration_of(experts), Preparation(),
        [MergeRecipe("svd", rank=1)], 0, outputs,
    )  # fmt: skip
    assert "svd: rank 1 keeps" in caplog.text and "merge.methods.svd.rank" in caplog.text
