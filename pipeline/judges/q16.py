"""Q16 (Schramowski et al., 2022): is an image inappropriate, by two tuned vectors in CLIP space."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

FIELDS = ("not_inappropriate", "inappropriate")  # the order of the published vectors


class Q16:
    """Scores CLIP image embeddings as 100 x cosine with each vector."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from torch.nn.functional import normalize

        try:
            vectors = load_file(path)["prompts"].float()
        except (OSError, KeyError, SafetensorError) as error:
            raise InputError(
                f"judges.q16 {path} is not a safetensors file with 'prompts': {error}"
            ) from error
        self._vectors = normalize(vectors.reshape(2, -1), dim=1)
        self.version = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]

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
