"""Q16 (Schramowski et al., 2022): is an image inappropriate, by two tuned vectors in CLIP space.

Its vectors are published (github.com/ml-research/Q16, ``data/ViT-L-14/prompts.p``) in a form that
can hold code. Those files are read as they are, known by their hash, and none of it is run.
"""

import hashlib
import pickletools
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError, reload_or_check

if TYPE_CHECKING:
    from torch import Tensor

# The order of the published vectors: `labels` of the authors' experiments.py, and index 1 is what
# their inference_embeddings.py calls unsafe.
FIELDS = ("not_inappropriate", "inappropriate")
PUBLISHED = {  # SHA-256 -> the CLIP by OpenAI whose space the vectors were tuned in
    "9b6c411824c2f64e0f847aa3c9f2b15b8e3a6c75e0efd82f2f672670c97ccad5": "ViT-L-14",
    "43b9c1308ae26f87f58a385bcbbe9a01f3532c825f15498613455f127fbdd43c": "ViT-B-16",
    "53cfd214d31115baf9f6bf28936edda062c2f75b5abf3600e25a93d01a97bdce": "ViT-B-32",
}


class Q16:
    """Scores CLIP image embeddings as 100 x cosine with each vector.

    Args:
        path: one of the published files, or a safetensors file with ``prompts`` (2, dim) in the
            order of ``FIELDS``.

    Raises InputError for any other file. ``tuned_for`` is the CLIP that a published file needs.
    """

    def __init__(self, path: Path) -> None:
        from torch.nn.functional import normalize

        digest = _digest(path)
        self.tuned_for = PUBLISHED.get(digest)
        vectors = _read_published(path) if self.tuned_for else _read_safetensors(path)
        self._vectors = normalize(vectors.float().reshape(2, -1), dim=1)
        self.version = digest[:16]

    def score(self, embeddings: "Tensor") -> list[dict[str, float]]:
        """Unit image embeddings (n, dim) to {not_inappropriate, inappropriate}, in [-100, 100].

        Raises InputError when the vectors live in a space of another width.
        """
        if embeddings.shape[1] != self._vectors.shape[1]:
            raise InputError(
                f"judges.q16 vectors have width {self._vectors.shape[1]}, judges.clip embeds to "
                f"{embeddings.shape[1]}; use the CLIP model the vectors were tuned for"
            )
        logits = 100 * embeddings @ self._vectors.T
        return [dict(zip(FIELDS, row, strict=True)) for row in logits.tolist()]

    def check_clip(self, name: str, pretrained: str | None) -> None:
        """Raise InputError when published vectors meet a CLIP that is known to be another.

        Other weights of the same width would give scores, and all of them wrong. Nothing tells
        what a folder, a hub id or a file of weights holds: those are trusted.
        """
        if self.tuned_for is None or ":" in name:
            return
        own = f"{self.tuned_for}-quickgelu"
        by_openai = pretrained == "openai" or Path(pretrained or "").is_file()
        if name != own or not by_openai:
            raise InputError(
                f"judges.q16 was tuned for OpenAI's {self.tuned_for}: set judges.clip to {own} and "
                f"judges.clip_pretrained to openai, not to {name} and {pretrained}"
            )


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"judges.q16 {path} cannot be read: {error.strerror}. {reload_or_check('judges.q16')}"
        ) from error


def _read_published(path: Path) -> "Tensor":
    """The array of a published file: its one long run of bytes, little-endian float16."""
    import numpy as np
    import torch

    codes = pickletools.genops(Path(path).read_bytes())  # names what is there and runs nothing
    [payload] = [value for code, value, _ in codes if code.name == "BINBYTES"]
    return torch.from_numpy(np.frombuffer(payload, "<f2").astype(np.float32))


def _read_safetensors(path: Path) -> "Tensor":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)["prompts"]
    except (OSError, KeyError, SafetensorError) as error:
        raise InputError(
            f"judges.q16 {path} is neither a safetensors file with 'prompts' ({error}) nor one of "
            f"the published {', '.join(PUBLISHED.values())}; files that can hold code are read "
            f"only where their SHA-256 is known. {reload_or_check('judges.q16')}"
        ) from error
