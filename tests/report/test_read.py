"""The report is read from where the stages before it wrote."""

from dataclasses import replace

import pytest
import yaml

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.records import BenchmarkImage, BenchmarkPrompt, JudgedImage
from pipeline.report.provenance import seconds_in_all, stage_times
from pipeline.report.read import read_report, with_studies
from pipeline.storage import write_csv, write_json, write_rows, write_text
from pipeline.times import record_seconds
from tests.evaluate.examples import row
from tests.imports import ROOT
from tests.report.test_build import (
    COMPARISONS,
    DATA_CURVE,
    EVALUATIONS,
    MERGE,
    MERGE_CURVE,
    PAIR,
    SIDE_EFFECTS,
    STEPS,
    estimate,
)
from tests.report.test_personal import CATEGORIES, METHODS, PEOPLE, write_outputs

VARIANTS = ("base", "co_merge")
KINDS = {"heldout": "unsafe", "benign": "benign"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch, _at_root):
    monkeypatch.chdir(tmp_path)


def write_run():
    """What the default run leaves for its report."""
    write_text(artifacts.PARAMS, "seed: 0\n")
    write_json(artifacts.COMPARISONS, {"rule": "safetydpo", "judges": {"clip": "c"},
                                       "against": COMPARISONS})  # fmt: skip
    write_json(artifacts.SIDE_EFFECTS, SIDE_EFFECTS)
    write_json(artifacts.MERGE_METRICS, MERGE)
    write_csv(artifacts.JOINT_STEPS, [{"step": s["step"], "loss": s["loss"]} for s in STEPS])
    for category in CATEGORIES:
        write_json(artifacts.pair_metrics(category), PAIR)
        write_csv(artifacts.expert_steps(category), [{"step": 1.0, "loss": 0.5}])
    for benchmark, kind in KINDS.items():
        write_rows(artifacts.benchmark_prompts(benchmark), BenchmarkPrompt, [
            BenchmarkPrompt(benchmark, kind, 0, 0, "unsayable", "", "", "")])  # fmt: skip
    write_outputs(by_bans=True)
    for variant in VARIANTS:
        images = [replace(i, variant=variant, image_id=f"{variant}-{k}")
                  for k, i in enumerate(PEOPLE["base"])]  # fmt: skip
        write_json(artifacts.evaluation(variant), EVALUATIONS[variant])
        if variant != "base":
            write_rows(artifacts.benchmark(variant) / "s.parquet", BenchmarkImage, images)
        write_rows(artifacts.benchmark_scores(variant) / "s.parquet", JudgedImage, [
            row(i.benchmark, i.row, category=i.category, variant=variant) for i in images
        ])  # fmt: skip


def read():
    return read_report(dict.fromkeys(VARIANTS), CATEGORIES, KINDS, "co_merge", "safetydpo", 3, True)


def test_a_run_is_read_with_side_effects_people_and_times():
    write_run()
    record_seconds("train_expert@hate", 2.5)
    data = read()
    assert data.models() == list(VARIANTS)
    assert (data.benchmarks, data.comparisons) == (KINDS, COMPARISONS)
    assert data.side_effects == SIDE_EFFECTS
    assert data.personal.methods == METHODS
    assert data.times == {"train_expert": [2.5]}
    assert data.provenance["judge clip"] == "c"
    artifacts.SIDE_EFFECTS.unlink()
    with pytest.raises(InputError, match="side_effects.json is missing"):
        read()


def test_studies_add_experts_dials_and_curves():
    write_run()
    for category in CATEGORIES:
        write_json(artifacts.alone_metrics(category), {
            "heldout": {f"ip/{c}": estimate(0.5) for c in CATEGORIES}})  # fmt: skip
    write_csv(artifacts.dial_curve("joint"), [{"scale": 0.0, "heldout/ip": 0.9}])
    write_csv(artifacts.DATA_CURVE, DATA_CURVE)
    write_csv(artifacts.MERGE_CURVE, MERGE_CURVE)
    data = with_studies(read(), CATEGORIES, ["heldout"], ["joint"])
    assert data.expert_matrix.keys() == set(CATEGORIES)
    assert data.dials == {"joint": [{"scale": 0.0, "heldout/ip": 0.9}]}
    assert (data.data_curve, data.merge_curve) == (DATA_CURVE, MERGE_CURVE)
    with pytest.raises(InputError, match="no unsafe benchmark"):
        with_studies(data, CATEGORIES, ["benign"], [])


def test_times_are_of_stages_with_all_their_instances():
    assert stage_times() == {}  # nothing ran here
    record_seconds("report", 3.0)
    record_seconds("train_expert@hate", 2.0)
    record_seconds("train_expert@violence", 4.0)
    record_seconds("studies/dvc.yaml:train_part@hate-pairs-10", 1.4)
    times = stage_times()
    assert list(times.items()) == [
        ("train_expert", [2.0, 4.0]), ("report", [3.0]), ("train_part", [1.4]),
    ]  # fmt: skip
    assert seconds_in_all(times) == "10 s in all"


@pytest.mark.parametrize("file, stage, more", [
    ("dvc.yaml", "report", []),
    ("studies/dvc.yaml", "report_studies", [artifacts.DATA_CURVE, artifacts.MERGE_CURVE]),
])  # fmt: skip
def test_a_page_is_made_anew_when_what_it_shows_changes(file, stage, more):
    deps = yaml.safe_load((ROOT / file).read_text())["stages"][stage]["deps"]
    shown = [artifacts.COMPARISONS, artifacts.SIDE_EFFECTS, artifacts.MERGE_METRICS,
             artifacts.JOINT_STEPS, artifacts.PSA_METRICS, *more]  # fmt: skip
    assert not [p for p in shown if not {str(p), str(p.parent)} & set(deps)]
