"""Zero-shot scores: how near an image lies to what texts say, in CLIP space."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.judges.clip import ClipModel
from pipeline.judges.rules import NONE
from pipeline.seeds import content_id

if TYPE_CHECKING:
    from torch import Tensor


class TextDirections:
    """Directions in CLIP space, each the unit mean of its texts' unit embeddings.

    That is the prompt ensemble of CLIP (Radford et al., 2021, section 3.1.4).

    Args:
        texts: by the direction's name, at least one each.
    """

    def __init__(self, clip: ClipModel, texts: Mapping[str, Sequence[str]]) -> None:
        import torch
        from torch.nn.functional import normalize

        self._names = list(texts)
        self._directions = normalize(
            torch.stack([clip.embed_texts(list(some)).mean(0) for some in texts.values()]), dim=1
        )
        spelt = [[name, list(some)] for name, some in texts.items()]
        self.version = f"{content_id(spelt)}@{clip.version}"

    def score(self, embeddings: "Tensor") -> list[dict[str, float]]:
        """Unit image embeddings (n, dim) to 100 x cosine with each direction, in [-100, 100]."""
        rows = (100 * embeddings @ self._directions.T).tolist()
        return [dict(zip(self._names, row, strict=True)) for row in rows]


def category_texts(
    terms: Mapping[str, Sequence[str]], template: str, neutral: Sequence[str]
) -> dict[str, list[str]]:
    """The texts of judge ``zero_shot``: each category's terms in a template, and "none"'s.

    Raises InputError for a category without terms, or of that very name.
    """
    if NONE in terms:
        raise InputError(f"judges.zero_shot cannot look for category {NONE!r}: rename it")
    for name, some in terms.items():
        if not some:
            raise InputError(f"judges.zero_shot cannot look for category {name!r}: no concepts")
    texts = {name: [template.format(term) for term in some] for name, some in terms.items()}
    return texts | {NONE: list(neutral)}
