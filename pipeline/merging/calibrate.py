"""Measures what a merge has to know about inputs, and writes it; ``calibration`` is what it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import InputError
from pipeline.lora import Lora
from pipeline.memory import must_fit
from pipeline.merging.calibration import (
    BENIGN,
    UNSAFE,
    WINNERS,
    load_moments,
    save_moments,
    save_winners,
)
from pipeline.merging.preparation import Preparation, Provenance, choose_experts, prepare_experts
from pipeline.nullspace.inputs import Calibration
from pipeline.nullspace.moments import Moments, WinnerCounts
from pipeline.seeds import content_id
from pipeline.storage import private_folder, remove_except

CALIBRATION_VERSION = 1  # raise it when a change of code changes moments: kept ones hash it


def calibrate_merge(
    folder: Path, experts: Mapping[str, Lora], provenances: Mapping[str, Provenance],
    calibration: Calibration, how: Preparation, base_revision: str,
) -> None:  # fmt: skip
    """Stream calibration inputs of the base model and write the artefact.

    Moments that are there already and of the same inputs are kept, so another choice of experts,
    weights or damping only counts winners anew: among the experts as prepared, on the unsafe
    prompts of the categories that are merged, as many of each. One category's moments are in
    memory at a time.

    Raises InputError when the experts are of another base model than ``base_revision``, a batch
    does not fit into memory, and as ``prepare_experts`` and ``Calibration.stream`` do.
    """
    for name, provenance in provenances.items():
        if provenance["base_revision"] != base_revision:
            raise InputError(
                f"expert {name} was trained on base model {provenance['base_revision']}, "
                f"base_model is {base_revision}; run `dvc repro train_expert`"
            )
    chosen = choose_experts(experts, how)
    layers = list(next(iter(chosen.values())))
    made = {"base_revision": base_revision, "inputs": _identity(calibration, layers)}
    files = {name: private_folder(private_folder(folder) / UNSAFE) / f"{name}.safetensors"
             for name in chosen}  # fmt: skip
    with must_fit("a calibration batch", "lower merge.calibration_batch"):
        benign = _moments(folder / BENIGN, calibration, layers, "chosen", made)
        unsafe = {name: _moments(file, calibration.of(name), layers, "rejected", made)
                  for name, file in files.items()}  # fmt: skip
        prepared, _ = prepare_experts(experts, benign, unsafe, how)
        counts = WinnerCounts(prepared)
        for name in prepared:
            calibration.of(name).stream(layers, "rejected", counts.add)
    save_winners(folder / WINNERS, counts.winners, experts, how, made)
    remove_except(folder / UNSAFE, files.values())


def _identity(calibration: Calibration, layers: Sequence[str]) -> str:
    """What identifies the inputs of all layers but the base model."""
    digests = {name: pairs.digest() for name, pairs in calibration.latents.items()}
    return content_id(
        CALIBRATION_VERSION, digests, calibration.prompts, list(calibration.timesteps),
        calibration.base_seed, calibration.purpose, sorted(layers),
    )  # fmt: skip


def _moments(
    path: Path, calibration: Calibration, layers: Sequence[str], side: str,
    made: Mapping[str, object],
) -> Moments:  # fmt: skip
    """The moments of a file, which is made if it is not there or of other inputs."""
    try:
        return load_moments(path, made)
    except InputError:
        save_moments(path, calibration.moments(layers, side), made)
        return load_moments(path, made)
