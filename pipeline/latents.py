"""The cache of what training needs of every pair, so that no encoder runs in the training loop.

VAE posteriors are stored as mean and standard deviation: training draws a fresh sample each step,
as if the encoder ran. Prompts are stored once each, with an index per pair. Latents decode back to
the images, so their folders are as private as those of the images.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.seeds import content_id
from pipeline.storage import atomic_path, private_folder

if TYPE_CHECKING:
    from torch import Tensor

FILE = "latents.safetensors"


@dataclass(frozen=True)
class LatentPairs:
    """Cached pairs of one or more categories, on the CPU.

    ``*_mean`` and ``*_std`` are (pairs, views, channels, h, w) float32, already times the VAE's
    scaling factor. Views are crops and mirror images, the same of both sides of a pair;
    ``corner`` (pairs, views, 2) is a view's top and left in the whole image.
    ``prompt_embeds`` is (prompts, tokens, width) float16, row 0 the empty prompt, ``pooled_embeds``
    (prompts, pooled width) float16, of width 0 for models without pooled embeddings; ``*_prompt``
    (pairs,) index into both, as does ``benign_prompt`` (benign prompts,): what should stay as it
    is. ``margin`` (pairs,) is by how much the judge prefers the chosen side.
    """

    pair_ids: list[str]
    chosen_mean: "Tensor"
    chosen_std: "Tensor"
    rejected_mean: "Tensor"
    rejected_std: "Tensor"
    corner: "Tensor"
    prompt_embeds: "Tensor"
    pooled_embeds: "Tensor"
    chosen_prompt: "Tensor"
    rejected_prompt: "Tensor"
    margin: "Tensor"
    benign_prompt: "Tensor"
    base_revision: str  # the model whose VAE and text encoder made these
    judge_spec: str  # JSON: the rule and judges that chose
    pixels: int  # side of the whole images
    view_pixels: int  # side of a view

    def __len__(self) -> int:
        return len(self.pair_ids)

    def select(self, pairs: Sequence[int]) -> "LatentPairs":
        """Some of the pairs, by position; prompts stay, so that their indices do."""
        per_pair = {n: getattr(self, n)[list(pairs)] for n in _TENSORS if n not in _SHARED}
        return replace(self, pair_ids=[self.pair_ids[k] for k in pairs], **per_pair)

    def _origin(self) -> list[object]:
        return [self.base_revision, self.judge_spec, self.pixels, self.view_pixels, self.pair_ids]

    @property
    def views(self) -> int:
        """How many views of a pair there are."""
        return self.corner.shape[1]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Channels, height and width of one view's latents."""
        return tuple(self.chosen_mean.shape[2:])

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (self.views, self.pixels, self.view_pixels, *self.latent_shape)

    def conditions(self, prompts: "Tensor", corner: "Tensor", device: object) -> dict[str, object]:
        """What a UNet is given besides latents and timesteps, float32.

        Args:
            prompts: (batch,) positions in ``prompt_embeds``.
            corner: (batch, 2) of the views; SDXL is told them, with the sizes of image and view.
            device: where the result is put.
        """
        import torch

        given = {"encoder_hidden_states": self.prompt_embeds[prompts].to(device).float()}
        if self.pooled_embeds.shape[1]:
            whole, view = (torch.full_like(corner, n) for n in (self.pixels, self.view_pixels))
            given["added_cond_kwargs"] = {
                "text_embeds": self.pooled_embeds[prompts].to(device).float(),
                "time_ids": torch.cat([whole, corner, view], 1).to(device).float(),
            }
        return given

    def digest(self) -> str:
        """SHA-256 over everything in it: training goes on only from its own checkpoint."""
        digest = hashlib.sha256(json.dumps(self._origin()).encode())
        for name in _TENSORS:
            digest.update(getattr(self, name).contiguous().numpy())
        return digest.hexdigest()


_TENSORS = {
    "chosen_mean": "float32", "chosen_std": "float32", "rejected_mean": "float32",
    "rejected_std": "float32", "prompt_embeds": "float16", "pooled_embeds": "float16",
    "margin": "float32", "chosen_prompt": "int64", "rejected_prompt": "int64",
    "benign_prompt": "int64", "corner": "int64",
}  # fmt: skip
_SHARED = ("prompt_embeds", "pooled_embeds", "benign_prompt")  # not one per pair
_INDICES = ("chosen_prompt", "rejected_prompt", "benign_prompt")  # into prompt_embeds


def hold_out(latents: LatentPairs, pairs: int) -> tuple[LatentPairs, LatentPairs]:
    """Pairs to train on, and ``pairs`` held out, chosen by a hash of their ids.

    Raises InputError when that leaves nothing to train on.
    """
    if pairs >= len(latents):
        raise InputError(
            f"experts.watch.held_out ({pairs}) leaves none of {len(latents)} pairs to train on"
        )
    order = sorted(range(len(latents)), key=lambda k: content_id("held out", latents.pair_ids[k]))
    return latents.select(sorted(order[pairs:])), latents.select(sorted(order[:pairs]))


def save_latents(folder: Path, latents: LatentPairs) -> None:
    """Write the cache as one safetensors file in a private folder, atomically."""
    from safetensors.torch import save_file

    private_folder(folder)
    tensors = {name: getattr(latents, name).contiguous() for name in _TENSORS}
    # one entry: safetensors writes several in random order, and equal data must give equal bytes
    header = {"origin": json.dumps(latents._origin())}
    with atomic_path(folder / FILE) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_latents(folder: Path) -> LatentPairs:
    """Read the cache of one category; InputError when missing, damaged, or not finite."""
    import torch
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / FILE
    try:
        with safe_open(path, "pt") as file:
            origin = json.loads(file.metadata()["origin"])
            base_revision, judge_spec, pixels, view_pixels, pair_ids = origin
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}); run `dvc repro cache_latents` for it"
        ) from error
    for name, dtype in _TENSORS.items():
        value = tensors[name]
        if value.dtype != getattr(torch, dtype) or not value.isfinite().all():
            raise InputError(
                f"{path}: {name} must hold finite {dtype}, it is {value.dtype}"
                f"{'' if value.isfinite().all() else ' with NaN or infinity'}; run "
                "`dvc repro cache_latents` for it"
            )
    return LatentPairs(
        pair_ids=pair_ids, base_revision=base_revision, judge_spec=judge_spec, pixels=pixels,
        view_pixels=view_pixels, **tensors,
    )  # fmt: skip


def join_latents(parts: Sequence[LatentPairs]) -> LatentPairs:
    """Pairs of several categories as one set, for joint training.

    Raises InputError when the parts come from different base models or have different shapes.
    """
    import torch

    for part in parts[1:]:
        if part.base_revision != parts[0].base_revision:
            raise InputError("latents of different base models cannot be joined; run `dvc repro`")
        if part.judge_spec != parts[0].judge_spec:
            raise InputError("latents of different judges cannot be joined; run `dvc repro`")
        if part._sizes != parts[0]._sizes:
            raise InputError(
                "latents of different shapes cannot be joined: images.size or "
                "latents.crop has changed; run `dvc repro cache_latents`"
            )
    offsets = np.cumsum([0, *(len(p.prompt_embeds) for p in parts)])[:-1]

    def joined(name: str) -> "Tensor":
        shifts = offsets if name in _INDICES else np.zeros_like(offsets)
        shifted = zip(parts, shifts, strict=True)
        return torch.cat([getattr(p, name) + int(k) if k else getattr(p, name)
                          for p, k in shifted])  # fmt: skip

    return replace(
        parts[0], pair_ids=[i for p in parts for i in p.pair_ids],
        **{name: joined(name) for name in _TENSORS},
    )  # fmt: skip
