"""What merging knows about inputs, as files: moments by category, and which expert reacts most.

``benign.safetensors`` and ``unsafe/<category>.safetensors`` hold the mean h h^T of layers' inputs,
``winners.safetensors`` the tables of ``moments.Winners``. Matrices are read when they are
asked for, so that a merge holds those of one layer in memory.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pipeline.errors import InputError
from pipeline.lora import Lora
from pipeline.merging.preparation import Preparation, Provenance, choose_experts
from pipeline.nullspace.moments import Moments, Winners
from pipeline.storage import atomic_path

BENIGN, WINNERS, UNSAFE = "benign.safetensors", "winners.safetensors", "unsafe"
HEADER = "calibration"


@dataclass(frozen=True)
class MergeCalibration:
    """The artefact of one set of prepared experts."""

    benign: Moments  # safe and benign prompts of all categories
    unsafe: Mapping[str, Moments]  # each category's unsafe prompts
    winners: Winners  # over the unsafe prompts of all merged categories


def lora_digest(lora: Lora) -> str:
    """What identifies a LoRA's weights."""
    digest = hashlib.sha256()
    for name, layer in sorted(lora.items()):
        for part in (layer.down, layer.up):
            digest.update(f"{name}{tuple(part.shape)}".encode())
            digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_moments(path: Path, moments: Moments, made: Mapping[str, object]) -> None:
    """Write moments; ``made`` says of what: base_revision and inputs."""
    matrices = {name: matrix.float() for name, matrix in moments.matrices.items()}
    _save(path, matrices, {**made, "leaders": dict(moments.leaders)})


def load_moments(path: Path, made: Mapping[str, object]) -> Moments:
    """Read moments; InputError unless they are of what ``made`` says."""
    matrices, header = _read(path, made["base_revision"])
    if header.get("inputs") != made["inputs"]:  # none: written by an older version
        raise InputError(
            f"{path} was made from other prompts, layers or settings; run `dvc repro "
            "calibrate_merge`"
        )
    return Moments(matrices, header["leaders"])


def save_winners(
    path: Path, winners: Winners, experts: Mapping[str, Lora], how: Preparation,
    made: Mapping[str, object],
) -> None:  # fmt: skip
    """Write the winners among ``experts``, as trained, when they are prepared so."""
    tables = {f"counts/{layer}": table for layer, table in winners.counts.items()}
    tables |= {f"sums/{layer}": table.float() for layer, table in winners.sums.items()}
    digests = {name: lora_digest(experts[name]) for name in winners.experts}
    _save(path, tables, {**made, "preparation": how.describe(), "experts": digests})


def load_calibration(
    folder: Path, experts: Mapping[str, Lora], provenances: Mapping[str, Provenance],
    how: Preparation,
) -> MergeCalibration:  # fmt: skip
    """Read the artefact, if it is of these experts, prepared so, and of their base model.

    Raises InputError, naming the file, if it is not or is missing or damaged.
    """
    base_revision = next(iter(provenances.values()))["base_revision"]
    tables, header = _read(folder / WINNERS, base_revision)
    names = list(header["experts"])
    chosen = choose_experts(experts, how)
    for name in sorted({*names, *chosen}):
        digest = lora_digest(experts[name]) if name in chosen else None
        if digest != header["experts"].get(name):
            raise InputError(
                f"{folder / WINNERS} was made with another expert {name}; "
                "run `dvc repro calibrate_merge`"
            )
    if header["preparation"] != json.loads(json.dumps(how.describe())):
        raise InputError(
            f"{folder / WINNERS} was made with other merge settings "
            f"({header['preparation']}); run `dvc repro calibrate_merge`"
        )
    kinds: dict[str, dict[str, Tensor]] = {"counts": {}, "sums": {}}
    for key in tables:
        kind, _, layer = key.partition("/")
        kinds[kind][layer] = tables[key]
    return MergeCalibration(
        load_moments(folder / BENIGN, header),
        {name: load_moments(folder / UNSAFE / f"{name}.safetensors", header) for name in names},
        Winners(names, **kinds),
    )


def _save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary,
                  metadata={HEADER: json.dumps(header, sort_keys=True)})  # fmt: skip


def _read(path: Path, base_revision: str) -> tuple["TensorFile", dict]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            names = list(file.keys())
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}); run `dvc repro calibrate_merge`"
        ) from error
    if header["base_revision"] != base_revision:
        raise InputError(
            f"{path} was made with base model {header['base_revision']}, the experts are of "
            f"{base_revision}; run `dvc repro calibrate_merge`"
        )
    return TensorFile(path, names), header


class TensorFile(Mapping[str, Tensor]):
    """Tensors of a safetensors file, each read when it is asked for."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._path, self._names = path, names

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import safe_open

        with safe_open(self._path, "pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
