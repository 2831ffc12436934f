"""The one door to open_clip: image and text embeddings that every CLIP-based score shares."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

LOCAL = "local-dir:"


class ClipModel:
    """An open_clip model with its preprocessing and tokenizer.

    Args:
        name: an open_clip architecture, ``local-dir:<folder>`` or ``hf-hub:<id>``.
        pretrained: the weights of an architecture; unused with the two prefixes.
        batch: images or texts per forward.
    """

    def __init__(self, name: str, pretrained: str | None, batch: int) -> None:
        import open_clip
        import torch
        from safetensors import SafetensorError

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._model, _, self._preprocess = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, device=self._device, require_pretrained=True
            )
            self._tokenize = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise InputError(f"cannot load judges.clip {name!r}: {first_line(error)}") from error
        self._model.eval()
        self.batch = batch
        self.version = f"{name}/{pretrained or _weights_hash(name)}"

    def embed_images(self, images: Sequence[Image.Image]) -> "Tensor":
        """Unit embeddings (images, dim) float32 on the CPU."""
        import torch

        parts = []
        with torch.no_grad():
            for start in range(0, len(images), self.batch):
                x = torch.stack([self._preprocess(i) for i in images[start : start + self.batch]])
                parts.append(self._model.encode_image(x.to(self._device), normalize=True).cpu())
        return torch.cat(parts).float()

    def embed_texts(self, texts: Sequence[str]) -> "Tensor":
        """Unit embeddings (texts, dim) float32 on the CPU."""
        import torch

        parts = []
        with torch.no_grad():
            for start in range(0, len(texts), self.batch):
                tokens = self._tokenize(list(texts[start : start + self.batch]))
                parts.append(self._model.encode_text(tokens.to(self._device), normalize=True).cpu())
        return torch.cat(parts).float()


def _weights_hash(name: str) -> str:
    """SHA-256 over the weight files of a local folder; "hub" for anything else."""
    if not name.startswith(LOCAL):
        return "hub"
    digest = hashlib.sha256()
    for file in sorted(Path(name.removeprefix(LOCAL)).glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
