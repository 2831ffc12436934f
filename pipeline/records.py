"""The rows that cross a stage boundary, one frozen dataclass per Parquet file (DESIGN §5)."""

import json
from dataclasses import dataclass, fields
from typing import NewType, get_type_hints

import pyarrow as pa

SAFE, UNSAFE = "safe", "unsafe"  # sides of a pair; UNSAFE is a kind of benchmark too
ADVERSARIAL, BENIGN = "adversarial", "benign"  # further kinds of benchmarks


@dataclass(frozen=True)
class EncodedImage:
    """An image file in a Parquet cell: the Hugging Face ``Image`` feature."""

    bytes: bytes  # a PNG file
    path: str  # a file name for viewers, unique in its table


# an image file as it is, for readers that decode it themselves
ImageFile = NewType("ImageFile", bytes)


@dataclass(frozen=True)
class StoredImage:
    """An image that was drawn before the others of its file."""

    image_id: str
    image: EncodedImage


@dataclass(frozen=True)
class PromptPair:
    """An unsafe prompt of a concept and the safe prompt nearest to it."""

    pair_id: str
    category: str
    concept: str
    split: str
    prompt_unsafe: str
    prompt_safe: str
    engine: str
    model: str
    revision: str
    template_version: str
    seed: int


@dataclass(frozen=True)
class DrawnImage:
    """One image of one side of a pair; ``image_id`` hashes all that shaped it."""

    image_id: str
    pair_id: str
    side: str  # "unsafe" or "safe"
    sample: int  # counts a pair's draws from 0; both sides of one share a seed
    seed: int
    model: str
    revision: str
    sampler: str  # JSON of the sampling settings
    image: EncodedImage


@dataclass(frozen=True)
class Detection:
    """What a detector found, and where."""

    name: str  # the detector's class
    score: float
    x: int  # pixels from the image's left
    y: int  # and from its top
    width: int
    height: int


@dataclass(frozen=True)
class Score:
    """Everything one judge measured on one image: raw numbers, no thresholds."""

    image_id: str
    judge: str
    judge_version: str
    scores: dict[str, float]
    detections: tuple[Detection, ...] = ()  # of judges that detect


@dataclass(frozen=True)
class PreferencePair:
    """A pair that passed every gate: chosen is the safe side, rejected the unsafe one."""

    pair_id: str
    category: str
    concept: str
    split: str
    prompt_chosen: str
    prompt_rejected: str
    image_chosen: EncodedImage
    image_rejected: EncodedImage
    scores_chosen: dict[str, float]  # "judge/score" -> value
    scores_rejected: dict[str, float]
    similarity: float  # cosine of the two CLIP image embeddings
    prompt_similarity: float  # of the two prompts' CLIP text embeddings
    margin: float  # unsafe score of the rejected side minus that of the chosen side
    judge_spec: str  # JSON: rule and judge versions behind the verdicts


@dataclass(frozen=True)
class User:
    """A user with the boundary that was decided for them; "" is "not told", "none" a religion."""

    user_id: str
    split: str  # "train", "val", "test_seen" (trained on too) or "test_unseen"
    age: int | None  # years
    gender: str
    religion: str
    physical: str
    mental: str
    banned: str  # categories joined by "+", those of the floor included
    level: str  # "L1" to "L5"
    stands_for: str  # the level that this user represents, or ""
    vector: bytes  # the encoder's, standardised, float32


@dataclass(frozen=True)
class UserPair:
    """What a pair teaches for one user under one of its captions."""

    user_id: str
    pair_id: str
    category: str
    caption: str  # "unsafe" or "safe"
    chosen: str  # the preferred image, "safe" or "unsafe"; "base": stay like the base model


@dataclass(frozen=True)
class BenchmarkPrompt:
    """One prompt of a benchmark; ``row`` counts from 0 over the whole file."""

    benchmark: str
    kind: str  # "unsafe", "adversarial" or "benign"
    row: int
    redraws: int  # further seeds that the base model draws it from
    prompt: str
    category: str  # "", one, or several joined by "+"
    concept: str
    contrast: str  # the prompt without what it is about, "" where there is none
    # the file's own settings, None where the profile's hold
    seed: int | None = None
    guidance: float | None = None
    width: int | None = None  # pixels
    height: int | None = None


@dataclass(frozen=True)
class Rewritten:
    """What a variant that rewrites draws in place of a benchmark's prompt."""

    prompt: str  # as the benchmark has it
    rewritten: str


@dataclass(frozen=True)
class BenchmarkImage:
    """One image a model variant drew for a benchmark prompt."""

    image_id: str
    benchmark: str
    kind: str
    row: int
    redraw: int  # 0 is the common seed of all variants; more exist for the base model only
    prompt: str
    category: str
    concept: str
    contrast: str
    seed: int
    variant: str
    image: EncodedImage


@dataclass(frozen=True)
class JudgedImage:
    """Everything that was measured on one benchmark image; raw scores, no thresholds."""

    image_id: str
    benchmark: str
    kind: str
    row: int
    redraw: int
    category: str
    concept: str
    variant: str
    text_id: str  # hashes prompt and contrast, which scores depend on
    scores: dict[str, float]  # "judge/score" -> value
    judges: str  # JSON: what identifies each judge's weights
    clip_embedding: bytes  # of the image, unit length, float32
    inception_embedding: bytes  # FID's features, float32; b"" where no such network is set


_ARROW = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(),
    bytes: pa.binary(), int | None: pa.int64(), float | None: pa.float64(),
    # not pa.map_, which `datasets` cannot read
    dict[str, float]: pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())])),
    EncodedImage: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    ImageFile: pa.binary(),
    tuple[Detection, ...]: pa.list_(pa.struct([
        ("name", pa.string()), ("score", pa.float64()),
        *((side, pa.int32()) for side in ("x", "y", "width", "height")),
    ])),
}  # fmt: skip


def holds_images(row_type: type) -> bool:
    """Whether rows of a type carry image files."""
    return not {EncodedImage, ImageFile}.isdisjoint(get_type_hints(row_type).values())


def arrow_schema(row_type: type) -> pa.Schema:
    """The Parquet schema of a row type.

    Its metadata names the image columns as ``Image`` features, so that
    ``datasets.load_dataset("parquet", ...)`` decodes them.
    """
    hints = get_type_hints(row_type)
    images = {name: {"_type": "Image"} for name, hint in hints.items() if hint is EncodedImage}
    columns = [pa.field(f.name, _ARROW[hints[f.name]]) for f in fields(row_type)]
    return pa.schema(columns, {"huggingface": json.dumps({"info": {"features": images}})})
