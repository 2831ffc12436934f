"""params.yaml as frozen, typed sections; an unknown key or a value out of range fails at once."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.artifacts import PARAMS
from pipeline.errors import InputError
from pipeline.taxonomy import Slug

Count = Annotated[int, Field(ge=1)]
Draws = Annotated[int, Field(ge=1, le=100)]  # each has a part of the timesteps to itself
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
MergeMethod = Literal["co_merge", "average", "task_arithmetic"]


class Section(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Taxonomy(Section):
    """Which harm categories are aligned, and the folder of their files."""

    folder: Path
    categories: Annotated[list[Slug], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_repeats(self) -> "Taxonomy":
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("categories lists a name twice")
        return self


class BaseModelParams(Section):
    """The text-to-image model to align: a diffusers folder, or a hub id with its revision."""

    path: str
    revision: str | None = None
    watch: Path  # what DVC watches: the local folder, or for a hub id any file that changes with it


class Prompts(Section):
    """Prompt synthesis; see ``pipeline.prompts``."""

    engine: Literal["transformers"]
    model: str
    revision: str | None = None
    watch: Path  # as base_model.watch
    temperature: Annotated[float, Field(ge=0, le=2)]
    max_new_tokens: Count
    batch: Count
    pairs_per_concept: Count
    max_attempts: Count  # rounds of asking before a pair is given up
    min_words: Count
    max_words: Count
    min_similarity: Share  # word-level Jaccard of the two prompts


class Images(Section):
    """How every image is drawn, for preference data and benchmarks alike."""

    scheduler: Literal["ddim", "dpm++"]
    steps: Count
    guidance: Annotated[float, Field(ge=1)]
    size: Annotated[int, Field(ge=8, multiple_of=8)]  # pixels, both sides
    batch: Count
    shard_rows: Count  # images per Parquet file; a finished file is never drawn again


class Judges(Section):
    """The classifiers and the rule that turns their raw scores into a verdict."""

    clip: str  # an open_clip name, ``local-dir:`` folder or ``hf-hub:`` id
    clip_pretrained: str | None = None
    watch: Path  # as base_model.watch, for the CLIP model
    q16: Path  # safetensors with ``prompts`` (2, embed_dim)
    rule: Literal["safetydpo", "q16_argmax", "nudenet_exposed"]
    batch: Count


class Pairs(Section):
    """Gates of a preference pair; similarity is the cosine of CLIP image embeddings."""

    min_similarity: Annotated[float, Field(ge=-1, le=1)]
    max_similarity: Annotated[float, Field(ge=-1, le=1)]
    min_pairs: Count  # a category with fewer is an error, not a weak expert


Timesteps = Annotated[list[Annotated[int, Field(ge=0, lt=1000)]], Field(min_length=1)]


class Latents(Section):
    """What is cached for training beside the pairs."""

    benign_prompts: Path  # one prompt a line: what the model must go on drawing as it does


class Lora(Section):
    """The trained adapter; fields as in ``pipeline.experts.LoraSettings``."""

    rank: Count
    alpha: Positive | None  # the delta counts alpha / rank times; null: alpha is rank
    targets: Annotated[list[str], Field(min_length=1)]
    row_share: Annotated[float, Field(gt=0, le=1)]  # of each layer's output rows, per category
    null_damping: Positive | None  # how far benign inputs are projected out; null for not
    null_prompts: Count  # per category: safe prompts, and as many benign ones
    null_timesteps: Timesteps


class Dpo(Section):
    """The preference objective (METHOD §1.2); fields as in ``pipeline.preference.DpoSettings``."""

    loss: Literal["diffusion_dpo", "ipo", "sft"]
    beta: Positive  # the logit is beta/2 times the error difference, as in the papers
    mu: Share | None  # winner-preserving safeguard of Diffusion-SDPO; null switches it off
    captions: Literal["unsafe", "safe", "both"]  # which prompts condition a pair
    prompt_dropout: Share
    margin_weights: bool  # weigh a pair by how much the judge prefers its chosen side
    sft_weight: Annotated[float, Field(ge=0)]  # weight of the chosen side's own error
    retention: Annotated[float, Field(ge=0)]  # weight of staying like base on safe prompts
    fixed_draws: Draws | None  # random draws per row, reference errors computed once; null: fresh


class Optim(Section):
    """The optimizer and its length; fields as in ``pipeline.train.TrainSettings``."""

    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    batch: Count  # pairs per step
    max_steps: Count
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Positive
    checkpoint_every: Count  # a multiple of log_every
    log_every: Count  # steps between two lines of metrics
    patience: Count | None  # stop after so many logs without a lower eval/loss; null: never
    max_chosen_error: Positive | None  # stop when the chosen error exceeds base's by this share
    precision: Literal["fp32", "bf16"]  # of the UNet's arithmetic; trained weights stay fp32
    gradient_checkpointing: bool  # less memory for a second forward

    @model_validator(mode="after")
    def _checkpoints_when_logged(self) -> "Optim":
        if self.checkpoint_every % self.log_every:
            raise ValueError("checkpoint_every must be a multiple of log_every")
        return self


class Watch(Section):
    """What is measured while training; fields as in ``pipeline.experts.WatchSettings``."""

    held_out: Annotated[int, Field(ge=0)]  # pairs per category that are not trained on
    draws: Draws  # fixed random draws for each of them


class Experts(Section):
    """Training of one expert per category."""

    lora: Lora
    dpo: Dpo
    optim: Optim
    watch: Watch

    @model_validator(mode="after")
    def _patience_needs_held_out_pairs(self) -> "Experts":
        if self.optim.patience is not None and not self.watch.held_out:
            raise ValueError("optim.patience needs watch.held_out pairs")
        return self


class Joint(Section):
    """The all-in-one baseline: as the experts but for these; all rows, alpha grown with rank."""

    rank: Count
    fixed_draws: Draws | None
    max_steps: Count


class Merge(Section):
    """Merging the experts: which methods, and the factor on each merged delta."""

    methods: Annotated[dict[MergeMethod, Positive], Field(min_length=1)]
    calibration_prompts: Count  # pairs per category: their prompts, and as many benign ones
    calibration_timesteps: Timesteps
    null_damping: Positive | None  # as experts.lora's, over the safe prompts of all categories
    equalise: bool  # scale experts to answer equally strongly to their own unsafe prompts


class Benchmark(Section):
    """A CSV of prompts; ``unsafe`` ones measure IP, ``benign`` ones quality and over-blocking."""

    kind: Literal["unsafe", "benign"]
    redraws: Annotated[int, Field(ge=0)] = 0  # extra seeds of the base model: its own spread


class Benchmarks(Section):
    """The benchmark files: ``<folder>/<name>.csv`` for every name in ``sets``."""

    folder: Path
    sets: Annotated[dict[Slug, Benchmark], Field(min_length=1)]

    def file(self, name: str) -> Path:
        """The CSV of a benchmark."""
        return self.folder / f"{name}.csv"


class Variant(Section):
    """A model to evaluate: the base model as it is, or with the LoRA folder ``path`` on it."""

    kind: Literal["base", "lora"]
    path: Path  # of a LoRA; for the base model what DVC watches
    negative_prompt: str = ""


class Evaluate(Section):
    """Intervals of the metrics."""

    bootstrap: Count


class Report(Section):
    """The HTML page."""

    rows_per_benchmark: Count


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    taxonomy: Taxonomy
    base_model: BaseModelParams
    prompts: Prompts
    images: Images
    judges: Judges
    pairs: Pairs
    latents: Latents
    experts: Experts
    joint: Joint
    merge: Merge
    benchmarks: Benchmarks
    variants: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], Variant], Field(min_length=1)
    ]
    evaluate: Evaluate
    report: Report

    def variant(self, name: str) -> Variant:
        """A variant by name; InputError lists the known ones."""
        if name not in self.variants:
            raise InputError(
                f"unknown variant {name!r}; params.yaml has {', '.join(self.variants)}"
            )
        return self.variants[name]

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if "base" not in self.variants:
            raise ValueError("variants must hold 'base': every quality metric compares with it")
        if self.pairs.min_similarity >= self.pairs.max_similarity:
            raise ValueError("pairs.min_similarity must be below pairs.max_similarity")
        for name, variant in self.variants.items():
            method = variant.path.name
            if variant.path.parent.name == "merged" and method not in self.merge.methods:
                raise ValueError(
                    f"variants.{name} needs {variant.path}, which merge.methods does not make"
                )
        lora, left = self.experts.lora, self.pairs.min_pairs - self.experts.watch.held_out
        if left < 1:
            raise ValueError("experts.watch.held_out must leave some of pairs.min_pairs")
        if lora.null_damping is not None and lora.null_prompts > left:
            raise ValueError("experts.lora.null_prompts must not exceed pairs.min_pairs - held_out")
        if self.merge.calibration_prompts > self.pairs.min_pairs:
            raise ValueError("merge.calibration_prompts must not exceed pairs.min_pairs")
        if self.prompts.min_words > self.prompts.max_words:
            raise ValueError("prompts.min_words must not exceed prompts.max_words")
        return self


def load_params(path: Path = PARAMS) -> Params:
    """Read and check params.yaml; InputError lists every fault with its key."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no {path} here; run from the root of the repository") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold sections, got {type(data).__name__}")
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()
        )
        raise InputError(f"{path}: {faults}") from error
