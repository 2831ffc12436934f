"""The one door to peft: LoRA on a UNet, its weights as plain matrices, and its file.

A LoRA here is a dict of layer name to ``LoraLayer`` with the scale already in ``up``, so a layer's
weight delta is always ``up @ down``. Files are diffusers' ``pytorch_lora_weights.safetensors``
with alpha = rank and our provenance in the header; nothing is pickled.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import LORA_FILE
from pipeline.errors import InputError
from pipeline.seeds import seed_for, torch_seeded
from pipeline.storage import atomic_path

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor
    from torch.nn import Parameter


@dataclass(frozen=True)
class LoraLayer:
    """One layer's low-rank delta: ``down`` (rank, d_in) and ``up`` (d_out, rank), float32.

    A DoRA (arXiv 2402.09353) also has the ``magnitude`` (d_out,) that its weight W + up @ down is
    scaled to by row, which is no low-rank delta any more.
    """

    down: "Tensor"
    up: "Tensor"
    magnitude: "Tensor | None" = None

    @property
    def delta(self) -> "Tensor":
        """The weight delta (d_out, d_in); InputError for a DoRA, which has none of its own."""
        if self.magnitude is not None:
            raise InputError(
                "a DoRA cannot be merged: its delta depends on the base weight; train the experts "
                "with experts.lora.dora: false"
            )
        return self.up @ self.down


Lora = dict[str, LoraLayer]


def lora_scale(rank: int, alpha: float | None = None, rslora: bool = False) -> float:
    """How often a trained delta counts: alpha / rank, or alpha / sqrt(rank) with rsLoRA.

    Alpha is the rank unless given (arXiv 2106.09685); rsLoRA: arXiv 2312.03732.
    """
    return (rank if alpha is None else alpha) / (rank**0.5 if rslora else rank)


def attach_lora(
    unet: "UNet2DConditionModel", rank: int, targets: Sequence[str], seed: int,
    alpha: float | None = None, dora: bool = False, rslora: bool = False,
) -> dict[str, "Parameter"]:  # fmt: skip
    """Put a trainable LoRA (Gaussian init, fp32), or DoRA, on a UNet; returns its parameters.

    Its delta counts ``lora_scale`` times.

    Raises InputError when a target matches no layer, or one that is not linear.
    """
    from peft import LoraConfig

    _check_targets(unet, targets)
    config = LoraConfig(
        r=rank, lora_alpha=rank if alpha is None else alpha, init_lora_weights="gaussian",
        target_modules=list(targets), use_dora=dora, use_rslora=rslora,
    )  # fmt: skip
    with torch_seeded(seed):
        unet.add_adapter(config)
    trained = {n: p for n, p in unet.named_parameters() if "lora_" in n}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return trained


def _check_targets(unet: "UNet2DConditionModel", targets: Sequence[str]) -> None:
    """Raise InputError unless each target ends the names of layers, all of them linear."""
    import torch

    for target in targets:
        layers = [m for n, m in unet.named_modules() if n == target or n.endswith(f".{target}")]
        other = {type(m).__name__ for m in layers if not isinstance(m, torch.nn.Linear)}
        if not layers or other:
            fault = f"names {', '.join(sorted(other))} layers" if layers else "matches no layer"
            raise InputError(
                f"experts.lora.targets: {target} {fault} of the UNet; take linear layers, whose "
                "LoRAs can be merged: of diffusers' attention to_q, to_k, to_v, to_out.0"
            )


def round_frozen(unet: "UNet2DConditionModel") -> None:
    """Keep frozen matrices and kernels in bfloat16, as autocast would round them at every forward.

    Norms' scales and biases stay as they are: autocast computes norms in float32.
    """
    import torch

    for parameter in unet.parameters():
        if not parameter.requires_grad and parameter.ndim > 1:
            parameter.data = parameter.data.to(torch.bfloat16)


def train_only_rows(parameters: Mapping[str, "Parameter"], share: float, base_seed: int) -> None:
    """Let a fresh LoRA write to a seeded random share of each layer's output rows only.

    The other rows of ``up`` start at zero and get no gradient, so they stay zero.
    """
    import torch

    for name, parameter in parameters.items():
        if ".lora_B." in name:
            generator = torch.Generator().manual_seed(seed_for(base_seed, "rows", name))
            rows = torch.rand(len(parameter), 1, generator=generator) < share
            parameter.register_hook(lambda gradient, rows=rows: gradient * rows.to(gradient))


def map_inputs(down: "Tensor", matrix: "Tensor") -> "Tensor":
    """``down`` of a layer that sees its input h as h M: (h M) A^T = h (A M^T)^T."""
    return down @ matrix.T


@contextmanager
def inputs_through(unet: "UNet2DConditionModel", maps: Mapping[str, "Tensor"]) -> Iterator[None]:
    """Within, the LoRA (not the base weight) of each layer sees its input times a matrix.

    ``maps`` holds (d_in, d_in) by layer name.
    """
    import torch
    from torch.nn.functional import linear

    def exact(down: "Tensor", matrix: "Tensor") -> "Tensor":
        with torch.autocast(down.device.type, enabled=False):  # what is projected out must cancel
            return map_inputs(down, matrix)

    handles = []
    for name, module in unet.named_modules():
        layer, _, rest = name.rpartition(".lora_A.")
        if rest and layer in maps:
            # A is thin: mapping it costs less than mapping the input
            matrix = maps[layer].to(unet.device)
            handles.append(module.register_forward_hook(
                lambda down, i, _, matrix=matrix: linear(i[0], exact(down.weight, matrix))
            ))  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def adapter_off(unet: "UNet2DConditionModel") -> Iterator[None]:
    """The reference model: the same UNet with its LoRA switched off, also if the body raises."""
    unet.disable_adapters()
    try:
        yield
    finally:
        unet.enable_adapters()


def extract_lora(parameters: Mapping[str, "Tensor"], scale: float = 1.0) -> Lora:
    """Parameters as ``attach_lora`` returns them to layers, detached copies.

    ``scale`` is the ``lora_scale`` they were trained with; it goes into ``up``.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in parameters.items():
        layer, _, kind = name.rpartition(".lora_")
        layers.setdefault(layer, {})[kind[0]] = value.detach().clone().float().cpu()
    return {
        layer: LoraLayer(parts["A"], parts["B"] * scale, parts.get("m"))  # m: magnitude_vector
        for layer, parts in sorted(layers.items())
    }


def lora_tensors(lora: Lora) -> dict[str, "Tensor"]:
    """A LoRA under diffusers' keys, all layers of one rank, padded with zeros; rank 0 is left out.

    Loaders disagree on how layers of several ranks scale: diffusers before its #14409, and 0.42
    for kohya's alphas of attention layers. One rank is right in all of them.
    """
    from torch.nn.functional import pad

    rank = max((len(layer.down) for layer in lora.values()), default=0)
    tensors = {}
    for name, layer in lora.items():
        missing = rank - len(layer.down)
        if missing == rank:
            continue
        tensors[f"unet.{name}.lora_A.weight"] = pad(layer.down, (0, 0, 0, missing)).contiguous()
        tensors[f"unet.{name}.lora_B.weight"] = pad(layer.up, (0, missing)).contiguous()
        if layer.magnitude is not None:
            tensors[f"unet.{name}.lora_magnitude_vector"] = layer.magnitude.contiguous()
    return tensors


def save_lora(folder: Path, lora: Lora, provenance: dict[str, object]) -> None:
    """Write a LoRA that ``load_lora_weights(folder)`` of diffusers reads, atomically.

    ``provenance`` (categories, base model, settings, metrics) goes into the file's header as JSON.
    """
    from safetensors.torch import save_file

    tensors = lora_tensors(lora)
    # one entry: safetensors writes several in random order, and equal LoRAs must be equal files
    header = {"provenance": json.dumps(provenance, sort_keys=True)}
    with atomic_path(Path(folder) / LORA_FILE) as temporary:
        save_file(tensors, temporary, metadata=header)


def _check_factors(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Raise InputError unless every layer has both factors, of one rank."""
    for layer in sorted({name.partition(".lora_")[0] for name in tensors}):
        down, up = (tensors.get(f"{layer}.lora_{kind}.weight") for kind in "AB")
        if down is None or up is None or down.ndim != 2 or up.shape[1:] != down.shape[:1]:
            raise InputError(
                f"{path}: layer {layer} does not have lora_A (rank, d_in) and lora_B (d_out, "
                "rank); train it again"
            )


def load_lora(folder: Path) -> tuple[Lora, dict[str, object]]:
    """A LoRA written by ``save_lora`` and its provenance.

    Raises InputError when the file is missing, damaged, without provenance, or holds NaN.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / LORA_FILE
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is missing or damaged ({error}); run `dvc repro`") from error
    if "provenance" not in header:
        raise InputError(f"{path} has no provenance in its header; it was not trained here")
    strange = [name for name in tensors if ".lora_" not in name]
    if strange:  # such as an alpha, which would have to count
        raise InputError(f"{path} holds {strange[0]}, which is not of a LoRA that was saved here")
    bad = [name for name, value in tensors.items() if not value.isfinite().all()]
    if bad:
        raise InputError(f"{path} holds NaN or infinity in {bad[0]}; train it again")
    _check_factors(path, tensors)
    lora = extract_lora({k.removeprefix("unet.").removesuffix(".weight"): v
                         for k, v in tensors.items()})  # fmt: skip
    return lora, json.loads(header["provenance"])
