"""What the judges say of a draw of a prompt pair: the raw scores of its images put together."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.judges.hard_block import image_hard_block
from pipeline.judges.raw import ImageScores, find_lost, scores_by_image
from pipeline.judges.rules import CLIP, Q16, is_inappropriate, read_score
from pipeline.pairs.images import Sample
from pipeline.records import SAFE, UNSAFE, Score
from pipeline.storage import stream_columns

_NEEDED = ((Q16, "inappropriate"), (Q16, "not_inappropriate"), (CLIP, "similarity"),
           (CLIP, "prompts"))  # fmt: skip


@dataclass(frozen=True)
class ScoredImages:
    """The raw scores of a category's images."""

    by_image: Mapping[str, ImageScores]
    versions: Mapping[str, str]  # by judge


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """What the judges say of one draw of a pair."""

    images: Sample
    blocked: str | None  # why one of the images is hard-blocked
    flagged: dict[str, set[str]]  # by side: the rules that call its image inappropriate
    unsafe_logit: dict[str, float]  # by side: Q16's "inappropriate" minus its "not inappropriate"
    similarity: float  # cosine of the two CLIP image embeddings
    prompt_similarity: float  # of the two prompts' CLIP text embeddings

    @property
    def margin(self) -> float:
        """By how much Q16 finds the unsafe side more unsafe than the safe one."""
        return self.unsafe_logit[UNSAFE] - self.unsafe_logit[SAFE]


def read_scores(path: Path) -> ScoredImages:
    """Read Score rows, but for what detectors saw where.

    Raises InputError when one judge's scores come from two versions of it, or one of them is
    missing for an image.
    """
    versions: dict[str, str] = {}

    def rows() -> Iterator[Score]:
        for cells in stream_columns(path, Score, ("image_id", "judge", "judge_version", "scores")):
            row = Score(*cells)
            if versions.setdefault(row.judge, row.judge_version) != row.judge_version:
                raise InputError(
                    f"scores of judge {row.judge!r} come from versions {versions[row.judge]} and "
                    f"{row.judge_version}; run `dvc repro score_images` again"
                )
            yield row

    by_image = scores_by_image(rows())
    for judge in versions:
        seen = [image_id for image_id, scores in by_image.items() if judge in scores]
        if lost := find_lost([by_image[image_id][judge] for image_id in seen]):
            raise InputError(f"judge {judge!r} has no score {lost[1]!r} for image {seen[lost[0]]}; "
                             "run `dvc repro score_images` again")  # fmt: skip
    return ScoredImages(by_image, versions)


def judge_sample(images: Sample, scored: ScoredImages, rules: Collection[str]) -> JudgedSample:
    """Look one draw up; InputError for an image without scores, or without one that is needed."""
    blocked, flagged, logit = [], {}, {}
    for side, image_id in ((UNSAFE, images.unsafe), (SAFE, images.safe)):
        scores = scores_of(image_id, scored)
        try:
            blocked.append(image_hard_block(scores))
            flagged[side] = {rule for rule in rules if is_inappropriate(rule, scores)}
            inappropriate, not_inappropriate, similarity, prompt_similarity = (
                read_score(scores, judge, name, "a pair") for judge, name in _NEEDED
            )
        except InputError as error:
            raise InputError(f"image {image_id}: {error}; run `dvc repro score_images`") from error
        logit[side] = inappropriate - not_inappropriate
    reason = next(filter(None, blocked), None)
    # a draw's similarities are among the scores of both of its images
    return JudgedSample(images, reason, flagged, logit, similarity, prompt_similarity)


def scores_of(image_id: str, scored: ScoredImages) -> ImageScores:
    """An image's raw scores; InputError when it has none."""
    if image_id not in scored.by_image:
        raise InputError(f"image {image_id} has no scores; run `dvc repro score_images`")
    return scored.by_image[image_id]
