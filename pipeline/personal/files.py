"""The adapter's file: weights, the user space it was trained in, and where it comes from.

One safetensors file with one header entry, so that equal adapters are equal files.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from pipeline.errors import InputError, first_line
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.space import UserSpace
from pipeline.storage import atomic_path


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter for a UNet, not yet attached to it."""

    adapter: PersonalAdapter
    space: UserSpace
    provenance: Mapping[str, object]  # base model, recipe, data, metrics


def save_space(path: Path, space: UserSpace) -> None:
    """Write a user space, atomically."""
    from safetensors.numpy import save_file

    with atomic_path(Path(path)) as temporary:
        save_file(space.arrays(), temporary, metadata={"space": json.dumps(space.header())})


def load_space(path: Path) -> UserSpace:
    """The user space of a file of its own, or of an adapter's.

    Raises InputError when the file is missing, damaged or neither.
    """
    path = Path(path)
    header, tensors = _read(path, "run `dvc repro simulate_users train_psa`")
    told = json.loads(header.get("psa", "{}")).get("space")
    return _space(path, told or json.loads(header.get("space", "null")), tensors)


def save_adapter(
    path: Path, adapter: PersonalAdapter, space: UserSpace, provenance: Mapping[str, object]
) -> None:
    """Write an adapter with its user space, atomically, in float32."""
    from safetensors.torch import save_file

    tensors = {n: v.detach().float().cpu().contiguous() for n, v in adapter.state_dict().items()}
    tensors |= {name: torch.from_numpy(array) for name, array in space.arrays().items()}
    header = {"adapter": asdict(adapter.settings), "space": space.header(), **provenance}
    with atomic_path(Path(path)) as temporary:
        save_file(tensors, temporary, metadata={"psa": json.dumps(header, sort_keys=True)})


def load_adapter(path: Path, unet: nn.Module, base_revision: str) -> LoadedAdapter:
    """Read an adapter for a UNet.

    Args:
        base_revision: what identifies the base model (``ModelSource.identity``).

    Raises InputError, naming the file, when it is missing, damaged, no adapter of ours, holds NaN,
    or is of another base model.
    """
    path = Path(path)
    header, tensors = _read(path, "run `dvc repro train_psa`")
    if "psa" not in header:
        raise InputError(f"{path} is no user adapter: its header says nothing of one")
    told = json.loads(header["psa"])
    if told.get("base_revision") != base_revision:
        raise InputError(f"{path} was trained on the base model {told.get('base_revision')}, this "
                         f"is {base_revision}; train it again for this one")  # fmt: skip
    if bad := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise InputError(f"{path} holds NaN or infinity in {bad[0]}; train it again")
    space = _space(path, told.pop("space", None), tensors)
    settings = AdapterSettings(**told.pop("adapter"))
    adapter = PersonalAdapter(unet, settings, space.categories, space.width)
    weights = {name: v for name, v in tensors.items() if not name.startswith("space.")}
    try:
        adapter.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit this UNet ({first_line(error)}); it is of another "
                         "base model") from error  # fmt: skip
    return LoadedAdapter(adapter.to(unet.device, unet.dtype).requires_grad_(False), space, told)


def _read(path: Path, advice: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is missing or damaged ({first_line(error)}); {advice}") from error


def _space(path: Path, header: dict | None, tensors: Mapping[str, torch.Tensor]) -> UserSpace:
    try:
        space = UserSpace.of(header, {name: value.numpy() for name, value in tensors.items()})
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} does not say whose vectors it is for ({error}); make it again "
                         "with `dvc repro simulate_users`") from error  # fmt: skip
    if not space.floor or not all(b.banned >= space.floor for b in space.levels.values()):
        raise InputError(f"{path} has no floor, or a level that lets through what it bans for "
                         "everybody; make it again with `dvc repro simulate_users`")  # fmt: skip
    return space
