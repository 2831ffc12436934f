"""The one door to open_clip: image and text embeddings that every CLIP-based score shares."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.errors import InputError, first_line, reload_or_check
from pipeline.memory import Fitting

if TYPE_CHECKING:
    from torch import Tensor

LOCAL = "local-dir:"


class ClipModel:
    """An open_clip model with its preprocessing and tokenizer.

    Args:
        name: an open_clip architecture, ``local-dir:<folder>`` or ``hf-hub:<id>``.
        pretrained: the weights of an architecture, a tag of open_clip's or a file; unused with the
            two prefixes.
        batch: images or texts per forward.

    Raises InputError for what cannot be loaded, and for weights that open_clip knows to be trained
    with another activation than the architecture computes; of a file it knows nothing.
    """

    def __init__(self, name: str, pretrained: str | None, batch: int) -> None:
        import open_clip
        import torch
        from safetensors import SafetensorError

        _check_activation(name, pretrained)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._model, _, self._preprocess = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, device=self._device, require_pretrained=True
            )
            self._tokenize = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise InputError(
                f"cannot load judges.clip {name!r}: {first_line(error)}. "
                + reload_or_check("judges")
            ) from error
        self._model.eval()
        self.batch = batch
        self._fitting = Fitting("judge images", "judges.batch")
        self.version = f"{name}/{_weights_id(name, pretrained)}, open_clip {open_clip.__version__}"

    def embed_images(self, images: Sequence[Image.Image]) -> "Tensor":
        """Unit embeddings (images, dim) float32 on the CPU."""
        import torch

        def embed(some: Sequence[Image.Image]) -> "Tensor":
            x = torch.stack([self._preprocess(image) for image in some])
            return self._model.encode_image(x.to(self._device), normalize=True).cpu()

        return self._in_batches(images, embed)

    def embed_texts(self, texts: Sequence[str]) -> "Tensor":
        """Unit embeddings (texts, dim) float32 on the CPU."""

        def embed(some: Sequence[str]) -> "Tensor":
            tokens = self._tokenize(list(some))
            return self._model.encode_text(tokens.to(self._device), normalize=True).cpu()

        return self._in_batches(texts, embed)

    def _in_batches(self, things: Sequence, embed: Callable[[Sequence], "Tensor"]) -> "Tensor":
        import torch

        parts = []
        with torch.no_grad():
            for start in range(0, len(things), self.batch):
                batch = things[start : start + self.batch]
                parts += self._fitting.run(
                    len(batch), lambda some, batch=batch: embed(batch[some]),
                    "take a smaller judges.clip",
                )  # fmt: skip
        return torch.cat(parts).float()


def _check_activation(name: str, pretrained: str | None) -> None:
    """Raise InputError where open_clip would warn, and go on with other numbers."""
    import open_clip

    architecture = name.replace("/", "-")  # as open_clip reads it
    told = open_clip.get_pretrained_cfg(architecture, pretrained or "")
    if not told:
        return  # no tag of its own: a file, a prefix, or an error to come
    config = open_clip.get_model_config(architecture)
    if told.get("quick_gelu", False) != config.get("quick_gelu", False):
        raise InputError(
            f"judges.clip {name!r} computes another activation than its weights {pretrained!r} "
            f"were trained with; set it to {architecture}-quickgelu, if open_clip has that"
        )


def _weights_id(name: str, pretrained: str | None) -> str:
    """The tag of weights, a SHA-256 over a file or a local folder's; "hub" for what is there."""
    if name.startswith(LOCAL):
        files = sorted(Path(name.removeprefix(LOCAL)).glob("*.safetensors"))
    elif pretrained and Path(pretrained).is_file():
        files = [Path(pretrained)]
    else:
        return pretrained or "hub"
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
