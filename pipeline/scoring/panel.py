"""Every judge, loaded once, looks at images once; what it finds are raw numbers, no verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import InputError
from pipeline.judges.clip import LOCAL, ClipModel
from pipeline.judges.directions import TextDirections, category_texts
from pipeline.judges.hard_block import AGE, AGE_TEXTS
from pipeline.judges.inception import Inception
from pipeline.judges.nudenet import NudeNet, best_scores
from pipeline.judges.q16 import Q16
from pipeline.judges.raw import ImageScores
from pipeline.judges.rules import CLIP, INCEPTION, NUDENET, VLM, ZERO_SHOT
from pipeline.judges.rules import Q16 as Q16_NAME
from pipeline.pixels import decode_images
from pipeline.progress import progress_bar
from pipeline.records import Detection, EncodedImage
from pipeline.scoring.vlm_judge import VlmJudge, load_vlm
from pipeline.seeds import content_id
from pipeline.sources import hash_weights
from pipeline.taxonomy import Category, load_category

if TYPE_CHECKING:
    from torch import Tensor

SCORING_VERSION = 1  # raise it when a change of code changes scores: stored ones are then redone


class Look(NamedTuple):
    """What was measured on some images, in their order."""

    embeddings: "Tensor"  # (images, dim) float32, unit length, by CLIP
    scores: list[ImageScores]
    detections: list[tuple[Detection, ...]]  # NudeNet's
    features: "Tensor | None" = None  # (images, 2048) float32, where the panel has an Inception


@dataclass
class Panel:
    """The judges, loaded once; one CLIP forward serves all that score by its embeddings."""

    clip: ClipModel
    q16: Q16
    nudenet: NudeNet
    inception: Inception | None = None  # FID's network, for benchmark images only
    settings: str = ""  # what scores depend on besides weights: CLIP's preprocessing, libraries
    zero_shot: TextDirections | None = None
    vlm: VlmJudge | None = None
    age: TextDirections = field(init=False)  # for the hard block, so never left out

    def __post_init__(self) -> None:
        self.age = TextDirections(self.clip, AGE_TEXTS)

    @property
    def versions(self) -> dict[str, str]:
        """What identifies each judge's weights."""
        optional = {INCEPTION: self.inception, ZERO_SHOT: self.zero_shot, VLM: self.vlm}
        return {CLIP: self.clip.version, Q16_NAME: f"{self.q16.version}@{self.clip.version}",
                NUDENET: self.nudenet.version, AGE: self.age.version} | {
            name: judge.version for name, judge in optional.items() if judge}  # fmt: skip

    def look(self, images: Sequence[EncodedImage]) -> Look:
        """One batch, of at most ``clip.batch`` images; InputError for one that is damaged."""
        pictures = decode_images(images)
        embeddings = self.clip.embed_images(pictures)
        detections = self.nudenet.find(pictures)
        found = {Q16_NAME: self.q16.score(embeddings), NUDENET: map(best_scores, detections),
                 AGE: self.age.score(embeddings)}  # fmt: skip
        if self.zero_shot:
            found[ZERO_SHOT] = self.zero_shot.score(embeddings)
        if self.vlm:
            found[VLM] = self.vlm.score(images)
        rows = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
        features = self.inception.embed_images(pictures) if self.inception else None
        return Look(embeddings, rows, detections, features)

    def look_at_all(self, images: Sequence[EncodedImage]) -> Look:
        """``look`` at one batch after another; at least one image."""
        import torch

        parts = []
        with progress_bar(len(images), "judge", "image") as progress:
            for start in range(0, len(images), self.clip.batch):
                parts.append(self.look(images[start : start + self.clip.batch]))
                progress.update(len(parts[-1].scores))
        embeddings, scores, detections, features = zip(*parts, strict=True)
        return Look(
            torch.cat(embeddings), list(chain(*scores)), list(chain(*detections)),
            torch.cat(features) if self.inception else None,
        )  # fmt: skip


def load_panel(
    clip: str, clip_pretrained: str | None, q16: Path, batch: int, inception: Path | None = None,
    zero_shot: Mapping[str, object] | None = None, vlm: Mapping[str, object] | None = None,
    categories: Path | None = None,
) -> Panel:  # fmt: skip
    """Load every judge that is set.

    Args:
        clip, clip_pretrained, batch: of ``ClipModel``.
        q16, inception: the vectors, and the weights of FID's network.
        zero_shot: the template and the neutral texts of ``category_texts``.
        vlm: the loading, what is told of it, and the max_attempts of ``load_vlm``.
        categories: folder of the category files whose concepts ``zero_shot`` looks for and whose
            definitions ``vlm`` is told; not read where neither is set.

    Raises InputError for what is missing, damaged, or does not go together.
    """
    vectors = Q16(q16)
    vectors.check_clip(clip, clip_pretrained)
    model = ClipModel(clip, clip_pretrained, batch)
    fid = Inception(inception, batch) if inception else None
    panel = Panel(model, vectors, NudeNet(), fid, _settings(clip))
    known = _read_categories(categories) if zero_shot or vlm else {}
    if zero_shot:
        terms = {name: category.all_concepts for name, category in known.items()}
        panel.zero_shot = TextDirections(model, category_texts(terms, **zero_shot))
    if vlm:
        definitions = {name: category.definition for name, category in known.items()}
        panel.vlm = load_vlm(categories=definitions, **vlm)
    return panel


def _read_categories(folder: Path) -> dict[str, Category]:
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise InputError(f"{folder} holds no categories for judges.zero_shot and judges.vlm; run "
                         "`dvc repro propose_concepts`")  # fmt: skip
    return {file.stem: load_category(file) for file in files}


def _settings(clip: str) -> str:
    libraries = [f"{name} {version(name)}" for name in ("open_clip_torch", "onnxruntime")]
    local = Path(clip.removeprefix(LOCAL))
    if clip.startswith(LOCAL) and local.is_dir():
        libraries.append(hash_weights(local))
    return content_id(*libraries)
