"""Encodes preference pairs once: VAE posteriors of their images, embeddings of their prompts.

Augmentation happens here: a pair is cached in several views, crops and mirror images that both of
its sides share, so that no view tells the sides apart (the published loops flip them separately).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.diffusion import encode_prompts, load_vae
from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.memory import Fitting
from pipeline.pixels import decode_image
from pipeline.progress import progress_bar
from pipeline.records import EncodedImage, PreferencePair
from pipeline.seeds import seed_for
from pipeline.sources import ModelSource

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ViewSettings:
    """Which views of a pair are cached."""

    views: int = 1
    flip: bool = False  # every second view mirrors the one before it
    crop: int | None = None  # pixels, side of a view; None: the whole image
    base_seed: int = 0


class View(NamedTuple):
    """What one cached view shows of an image."""

    top: int
    left: int
    mirrored: bool


def views_of(pair_id: str, pixels: int, settings: ViewSettings) -> list[View]:
    """The views of a pair's square images: the middle first, others cropped by the pair's id."""
    found, room = [], pixels - (settings.crop or pixels)
    for k in range(settings.views):
        crop, mirrored = divmod(k, 2) if settings.flip else (k, 0)
        top, left = room // 2, room // 2
        if crop:
            top, left = (
                seed_for(settings.base_seed, "crop", pair_id, crop, axis) % (room + 1)
                for axis in "yx"
            )
        found.append(View(top, left, bool(mirrored)))
    return found


class _Told(NamedTuple):
    """What is held of a pair: everything but its pictures."""

    pair_id: str
    prompt_chosen: str
    prompt_rejected: str
    margin: float
    judge_spec: str
    sides: set[int]  # of its pictures, pixels


def encode_pairs(
    pairs: Iterable[PreferencePair], source: ModelSource, batch: int,
    benign_prompts: Sequence[str], views: ViewSettings = ViewSettings(),
) -> LatentPairs:  # fmt: skip
    """Encode both images and both prompts of every pair with the model's own encoders.

    The empty prompt, which guidance uses, joins ``benign_prompts``.

    Args:
        pairs: gone through three times, and only a batch of pictures held: a list, or a file's
            ``StoredRows``, which hold a row group.

    Raises:
        InputError: the pairs do not all come from one named judge, or their images are not square
            and of one size, or smaller than the crop.
    """
    import torch

    told = [_tell(pair) for pair in pairs]
    specs = {t.judge_spec for t in told}
    if len(specs) != 1 or "" in specs:
        raise InputError(
            f"pairs of {len(specs)} judge specs, or of none: nobody could say what they prefer; "
            "run `dvc repro build_pairs`"
        )
    side = _one_side(set().union(*(t.sides for t in told)), views.crop)
    seen = [views_of(t.pair_id, side, views) for t in told]
    prompts = [text for t in told for text in (t.prompt_chosen, t.prompt_rejected)]
    texts = list(dict.fromkeys(["", *benign_prompts, *prompts]))
    row = {text: k for k, text in enumerate(texts)}
    prompt_embeds, pooled_embeds = encode_prompts(source, texts, batch)
    return LatentPairs(
        pair_ids=[t.pair_id for t in told], base_revision=source.identity,
        judge_spec=specs.pop(), margin=torch.tensor([t.margin for t in told]),
        pixels=side, view_pixels=views.crop or side,
        corner=torch.tensor([[(v.top, v.left) for v in of_pair] for of_pair in seen]),
        prompt_embeds=prompt_embeds.half(), pooled_embeds=pooled_embeds.half(),
        chosen_prompt=torch.tensor([row[t.prompt_chosen] for t in told]),
        rejected_prompt=torch.tensor([row[t.prompt_rejected] for t in told]),
        benign_prompt=torch.tensor([row[t] for t in ("", *benign_prompts)]),
        **_encode_images(pairs, seen, views.crop or side, source, batch),
    )  # fmt: skip


def _tell(pair: PreferencePair) -> _Told:
    images = (pair.image_chosen, pair.image_rejected)
    sides = {side for image in images for side in decode_image(image).size}
    return _Told(pair.pair_id, pair.prompt_chosen, pair.prompt_rejected, pair.margin,
                 pair.judge_spec, sides)  # fmt: skip


def _one_side(sides: set[int], crop: int | None) -> int:
    """The side of all images, pixels; InputError when there are several or the crop is larger."""
    if len(sides) > 1:
        raise InputError(
            f"images of one category must be square and of one size, their sides are "
            f"{sorted(sides)}; draw them with one images.size"
        )
    (side,) = sides
    if crop is not None and crop > side:
        raise InputError(f"latents.crop ({crop}) is larger than the images ({side} pixels)")
    return side


def _encode_images(
    pairs: Iterable[PreferencePair], seen: Sequence[Sequence[View]], pixels: int,
    source: ModelSource, batch: int,
) -> dict[str, "Tensor"]:  # fmt: skip
    """The posteriors of every view of both sides by field name, on the CPU."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = load_vae(source).to(device)
    scale, count = vae.config.scaling_factor, len(seen[0])
    total, fields = 2 * count * len(seen), {}
    fitting, remedy = Fitting("encode images", "images.batch"), "lower images.size or latents.crop"

    def encode(part: "Tensor", some: slice):
        return vae.encode(part[some].to(device)).latent_dist

    with progress_bar(total, "encode", "view") as progress, torch.no_grad():
        for side in ("chosen", "rejected"):
            means, stds = [], []
            # (image, view) in order, read and decoded a batch at a time
            todo = ((getattr(p, f"image_{side}"), v) for p, s in zip(pairs, seen, strict=True)
                    for v in s)  # fmt: skip
            while some := list(islice(todo, batch)):
                part = _to_pixels(some, pixels)
                for posterior in fitting.run(len(part), partial(encode, part), remedy):
                    means.append(posterior.mean.cpu())
                    stds.append(posterior.std.cpu())
                progress.update(len(part))
            for name, parts in (("mean", means), ("std", stds)):
                found = torch.cat(parts) * scale
                fields[f"{side}_{name}"] = found.unflatten(0, (len(seen), count))
    return fields


def _to_pixels(views: Sequence[tuple[EncodedImage, View]], pixels: int) -> "Tensor":
    """Views of images as (batch, 3, pixels, pixels) floats in [-1, 1]."""
    import torch

    arrays = []
    for image, view in views:
        whole = np.asarray(decode_image(image))
        cut = whole[view.top : view.top + pixels, view.left : view.left + pixels]
        arrays.append(cut[:, ::-1] if view.mirrored else cut)
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
