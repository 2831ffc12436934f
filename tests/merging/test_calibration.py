import dataclasses
import shutil

import pytest
import torch

from pipeline.errors import InputError
from pipeline.merging.calibrate import calibrate_merge
from pipeline.merging.calibration import BENIGN, WINNERS, load_calibration, lora_digest
from pipeline.merging.lowrank import scale_lora
from pipeline.merging.preparation import Preparation, prepare_experts
from pipeline.nullspace.inputs import Calibration
from pipeline.nullspace.moments import WinnerCounts
from tests.merging.examples import adapter_experts

HOW = Preparation(null_damping=0.5, equalise=True)


@pytest.fixture
def experts(tiny_unet):
    return adapter_experts(tiny_unet)


@pytest.fixture
def provenances():
    return {name: {"base_revision": "r1"} for name in "ab"}


@pytest.fixture
def folder(tmp_path, experts, provenances, calibration):
    calibrate_merge(tmp_path, experts, provenances, calibration, HOW, "r1")
    return tmp_path


def test_the_artefact_holds_what_was_streamed(folder, experts, provenances, calibration):
    loaded = load_calibration(folder, experts, provenances, HOW)
    layers = sorted(experts["a"])
    benign = calibration.moments(layers, "chosen")
    unsafe = {name: calibration.of(name).moments(layers, "rejected") for name in "ab"}
    for layer in layers:
        assert torch.allclose(loaded.benign[layer].double(), benign[layer], rtol=1e-5)
        assert torch.allclose(loaded.unsafe["b"][layer].double(), unsafe["b"][layer], rtol=1e-5)
    prepared, _ = prepare_experts(experts, benign, unsafe, HOW)
    counts = WinnerCounts(prepared)
    calibration.stream(layers, "rejected", counts.add)
    assert loaded.winners.experts == ["a", "b"]
    for layer in layers:  # of the experts as prepared, over all categories
        assert torch.equal(loaded.winners.counts[layer], counts.winners.counts[layer])
        assert torch.equal(loaded.winners.rows(layer), counts.winners.rows(layer))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_equal_runs_write_equal_files(folder, tmp_path_factory, experts, provenances, calibration):
    again = tmp_path_factory.mktemp("again")
    calibrate_merge(again, experts, provenances, calibration, HOW, "r1")
    files = sorted(p.relative_to(folder) for p in folder.rglob("*.safetensors"))
    assert len(files) == 4
    assert all((folder / p).read_bytes() == (again / p).read_bytes() for p in files)


def test_the_order_of_experts_does_not_matter(
    folder, tmp_path_factory, experts, provenances, calibration
):
    turned = tmp_path_factory.mktemp("turned")
    calibrate_merge(turned, dict(reversed(experts.items())), provenances, calibration, HOW, "r1")
    assert (folder / WINNERS).read_bytes() == (turned / WINNERS).read_bytes()


def test_an_expert_that_is_left_out_is_not_counted(folder, experts, provenances, calibration):
    how = Preparation(weights={"a": 0.0})
    calibrate_merge(folder, experts, provenances, calibration, how, "r1")
    assert load_calibration(folder, experts, provenances, how).winners.experts == ["b"]
    assert [p.name for p in (folder / "unsafe").iterdir()] == ["b.safetensors"]


def test_calibration_of_other_experts_settings_or_models_is_refused(
    folder, experts, provenances, calibration
):
    other = experts | {"b": scale_lora(experts["b"], 2.0)}
    with pytest.raises(InputError, match=f"{folder / WINNERS} was made with another expert b"):
        load_calibration(folder, other, provenances, HOW)
    with pytest.raises(InputError, match="another expert b"):
        load_calibration(folder, {"a": experts["a"]}, provenances, HOW)
    with pytest.raises(InputError, match="made with other merge settings.*calibrate_merge"):
        load_calibration(folder, experts, provenances, Preparation(equalise=True))
    another = {name: {"base_revision": "r2"} for name in "ab"}
    with pytest.raises(InputError, match=f"{folder / WINNERS} was made with base model r1, .* r2"):
        load_calibration(folder, experts, another, HOW)
    with pytest.raises(InputError, match="expert a was trained on base model r2, base_model is r1"):
        calibrate_merge(folder, experts, another, calibration, HOW, "r1")


def test_a_missing_or_damaged_file_is_named(folder, experts, provenances):
    (folder / WINNERS).write_bytes(b"\0" * 50)
    with pytest.raises(InputError, match=f"{folder / WINNERS} is missing or damaged"):
        load_calibration(folder, experts, provenances, HOW)
    (folder / WINNERS).unlink()
    with pytest.raises(InputError, match="is missing or damaged.*run `dvc repro calibrate_merge`"):
        load_calibration(folder, experts, provenances, HOW)


def test_a_digest_follows_the_weights(experts):
    assert lora_digest(experts["a"]) == lora_digest(dict(reversed(experts["a"].items())))
    assert lora_digest(experts["a"]) != lora_digest(experts["b"])
    assert lora_digest(experts["a"]) != lora_digest(scale_lora(experts["a"], 1.001))


def test_moments_of_the_same_inputs_are_not_measured_again(
    folder, experts, provenances, calibration, monkeypatch
):
    streamed = []
    stream = Calibration.stream

    def watch(self, layers, side, add):
        streamed.append(side)
        stream(self, layers, side, add)

    monkeypatch.setattr(Calibration, "stream", watch)
    how = Preparation(weights={"a": 0.5})
    calibrate_merge(folder, experts, provenances, calibration, how, "r1")
    assert streamed == ["rejected", "rejected"]  # the winners of two categories
    before = dict(load_calibration(folder, experts, provenances, how).benign.matrices)
    fewer = dataclasses.replace(calibration, prompts=2)
    calibrate_merge(folder, experts, provenances, fewer, how, "r1")
    after = load_calibration(folder, experts, provenances, how).benign.matrices
    assert not all(torch.equal(after[name], before[name]) for name in before)


def test_moments_of_other_inputs_beside_the_winners_are_refused(
    folder, tmp_path_factory, experts, provenances, calibration
):
    other = tmp_path_factory.mktemp("other")
    fewer = dataclasses.replace(calibration, prompts=2)
    calibrate_merge(other, experts, provenances, fewer, HOW, "r1")
    shutil.copy(other / BENIGN, folder / BENIGN)
    with pytest.raises(InputError, match=f"{folder / BENIGN} was made from other prompts"):
        load_calibration(folder, experts, provenances, HOW)


def test_a_batch_that_does_not_fit_says_what_to_lower(
    tmp_path, experts, provenances, calibration, monkeypatch
):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(calibration.unet, "forward", full)
    with pytest.raises(InputError, match="lower merge.calibration_batch"):
        calibrate_merge(tmp_path, experts, provenances, calibration, HOW, "r1")
