"""Caches what training needs of every pair, so that no encoder runs in the training loop.

VAE posteriors are stored as mean and standard deviation: training draws a fresh sample each step,
as if the encoder ran. Prompts are stored once each, with an index per pair. Latents decode back to
the images, so they live in the same private folders as the images.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.diffusion import encode_prompts, load_vae
from pipeline.errors import InputError
from pipeline.pixels import decode_image
from pipeline.policy import hard_block
from pipeline.progress import progress_bar
from pipeline.records import EncodedImage, PreferencePair
from pipeline.storage import atomic_path, private_folder

if TYPE_CHECKING:
    from torch import Tensor

FILE = "latents.safetensors"


@dataclass(frozen=True)
class LatentPairs:
    """Cached pairs of one or more categories, on the CPU, float32.

    ``*_mean`` and ``*_std`` are (pairs, channels, h, w), already times the VAE's scaling factor;
    ``prompt_embeds`` is (prompts, tokens, width), row 0 the empty prompt, ``pooled_embeds``
    (prompts, pooled width), of width 0 for models without pooled embeddings; ``*_prompt`` (pairs,)
    index into both, as does ``benign_prompt`` (benign prompts,): what should stay as it is.
    ``margin`` (pairs,) is by how much the judge prefers the chosen side.
    """

    pair_ids: list[str]
    chosen_mean: "Tensor"
    chosen_std: "Tensor"
    rejected_mean: "Tensor"
    rejected_std: "Tensor"
    prompt_embeds: "Tensor"
    pooled_embeds: "Tensor"
    chosen_prompt: "Tensor"
    rejected_prompt: "Tensor"
    margin: "Tensor"
    benign_prompt: "Tensor"
    base_revision: str  # the model whose VAE and text encoder made these
    judge_spec: str  # JSON: the rule and judges that chose
    pixels: int  # side of the images

    def __len__(self) -> int:
        return len(self.pair_ids)

    def select(self, pairs: Sequence[int]) -> "LatentPairs":
        """Some of the pairs, by position; prompts stay, so that their indices do."""
        per_pair = {n: getattr(self, n)[list(pairs)] for n in _TENSORS if n not in _SHARED}
        return replace(self, pair_ids=[self.pair_ids[k] for k in pairs], **per_pair)

    def _origin(self) -> list[object]:
        return [self.base_revision, self.judge_spec, self.pixels, self.pair_ids]

    def conditions(self, prompts: "Tensor", device: object) -> dict[str, object]:
        """What a UNet is given besides latents and timesteps for prompts (batch,) by position.

        SDXL also sees pooled embeddings and sizes: the images are whole and at their own size.
        """
        import torch

        given = {"encoder_hidden_states": self.prompt_embeds[prompts].to(device)}
        if self.pooled_embeds.shape[1]:
            size = [self.pixels, self.pixels]
            sizes = torch.tensor([size + [0, 0] + size], dtype=torch.float32)
            given["added_cond_kwargs"] = {
                "text_embeds": self.pooled_embeds[prompts].to(device),
                "time_ids": sizes.repeat(len(prompts), 1).to(device),
            }
        return given

    def digest(self) -> str:
        """SHA-256 over everything in it: training goes on only from its own checkpoint."""
        digest = hashlib.sha256(json.dumps(self._origin()).encode())
        for name in _TENSORS:
            digest.update(getattr(self, name).contiguous().numpy().tobytes())
        return digest.hexdigest()


_TENSORS = (
    "chosen_mean", "chosen_std", "rejected_mean", "rejected_std", "prompt_embeds", "pooled_embeds",
    "margin", "chosen_prompt", "rejected_prompt", "benign_prompt",
)  # fmt: skip
_SHARED = ("prompt_embeds", "pooled_embeds", "benign_prompt")  # not one per pair
_INDICES = ("chosen_prompt", "rejected_prompt", "benign_prompt")  # into prompt_embeds


def encode_pairs(
    pairs: Sequence[PreferencePair], model: str, revision: str | None, base_revision: str,
    batch: int, benign_prompts: Sequence[str],
) -> LatentPairs:  # fmt: skip
    """Encode both images and both prompts of every pair with the model's own encoders.

    The empty prompt, which guidance uses, joins ``benign_prompts``. Raises InputError when the
    pairs do not all come from one named judge, or their images are not square and of one size.
    """
    import torch

    specs = {p.judge_spec for p in pairs}
    if len(specs) != 1 or "" in specs:
        raise InputError(
            f"pairs of {len(specs)} judge specs, or of none: nobody could say what they prefer; "
            "run `dvc repro build_pairs`"
        )
    sides = {s for p in pairs for i in (p.image_chosen, p.image_rejected)
             for s in decode_image(i).size}  # fmt: skip
    if len(sides) > 1:
        raise InputError(
            f"images of one category must be square and of one size, their sides are "
            f"{sorted(sides)}; draw them with one images.size"
        )
    prompts = [t for p in pairs for t in (p.prompt_chosen, p.prompt_rejected)]
    texts = list(dict.fromkeys(["", *benign_prompts, *prompts]))
    row = {text: k for k, text in enumerate(texts)}
    prompt_embeds, pooled_embeds = encode_prompts(model, revision, texts, batch)
    return LatentPairs(
        pair_ids=[p.pair_id for p in pairs], base_revision=base_revision,
        judge_spec=specs.pop(), pixels=sides.pop(), margin=torch.tensor([p.margin for p in pairs]),
        prompt_embeds=prompt_embeds, pooled_embeds=pooled_embeds,
        chosen_prompt=torch.tensor([row[p.prompt_chosen] for p in pairs]),
        rejected_prompt=torch.tensor([row[p.prompt_rejected] for p in pairs]),
        benign_prompt=torch.tensor([row[t] for t in ("", *benign_prompts)]),
        **_encode_images(pairs, model, revision, batch),
    )  # fmt: skip


def _encode_images(
    pairs: Sequence[PreferencePair], model: str, revision: str | None, batch: int
) -> dict[str, "Tensor"]:
    """The posteriors of both sides by field name, on the CPU."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = load_vae(model, revision).to(device)
    moments = {side: [] for side in ("chosen", "rejected")}
    with progress_bar(2 * len(pairs), "encode", "image") as progress, torch.no_grad():
        for side, parts in moments.items():
            images = [getattr(p, f"image_{side}") for p in pairs]
            for start in range(0, len(images), batch):
                pixels = _to_pixels(images[start : start + batch]).to(device)
                posterior = vae.encode(pixels).latent_dist
                parts.append((posterior.mean.cpu(), posterior.std.cpu()))
                progress.update(len(pixels))
    return {
        f"{side}_{name}": torch.cat([part[k] for part in parts]) * vae.config.scaling_factor
        for side, parts in moments.items()
        for k, name in enumerate(("mean", "std"))
    }


def read_benign_prompts(path: Path) -> list[str]:
    """A UTF-8 text file with one prompt a line; empty lines are skipped.

    Raises InputError when the file is missing, no text, holds no prompt, or a hard-blocked one.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read latents.benign_prompts {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        reason = hard_block(line, "")
        if reason:
            raise InputError(f"{path} line {number} is hard-blocked ({reason}); remove it")
    prompts = list(dict.fromkeys(line for line in lines if line))
    if not prompts:
        raise InputError(f"latents.benign_prompts {path} holds no prompt; give one a line")
    return prompts


def _to_pixels(images: Sequence[EncodedImage]) -> "Tensor":
    """Images of one size as (batch, 3, h, w) floats in [-1, 1]."""
    import torch

    arrays = np.stack([np.asarray(decode_image(i)) for i in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1


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
    """Read the cache of one category; InputError when missing or damaged."""
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / FILE
    try:
        with safe_open(path, "pt") as file:
            base_revision, judge_spec, pixels, pair_ids = json.loads(file.metadata()["origin"])
            return LatentPairs(
                pair_ids=pair_ids, base_revision=base_revision, judge_spec=judge_spec,
                pixels=pixels,
                **{name: file.get_tensor(name) for name in _TENSORS},
            )  # fmt: skip
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}); run `dvc repro cache_latents` for it"
        ) from error


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
        if part.chosen_mean.shape[1:] != parts[0].chosen_mean.shape[1:]:
            raise InputError("latents of different shapes cannot be joined; run `dvc repro`")
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
