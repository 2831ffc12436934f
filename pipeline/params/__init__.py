"""params.yaml as frozen, typed sections; an unknown key or a value out of range fails at once."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.artifacts import PARAMS
from pipeline.errors import InputError
from pipeline.params.cluster import Cluster
from pipeline.params.judges import Judges
from pipeline.params.llm import Llm
from pipeline.params.merging import Merge, Ship
from pipeline.params.personal import EvaluatePsa, Form, Policy, Psa, UserPairs, Users
from pipeline.params.prompts import Concepts, Prompts
from pipeline.params.studies import Alone, Dial, Scaling, VariantName
from pipeline.params.training import Experts, Joint
from pipeline.params.variants import Variant
from pipeline.section import Count, Section, Watched, check_watched, read_yaml
from pipeline.taxonomy import Slug


class Taxonomy(Section):
    """Which harm categories are aligned, and the folder of their files."""

    folder: Path
    categories: Annotated[list[Slug], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_repeats(self) -> "Taxonomy":
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("categories lists a name twice")
        return self


class BaseModelParams(Watched):
    """The text-to-image model to align: a diffusers folder, or a hub id with its revision."""

    SOURCES = ("path", "vae")
    path: str
    revision: str | None = None
    vae: str | None = None  # another VAE than the model's own, such as SDXL's fp16-fix
    vae_revision: str | None = None
    # what DVC watches: the local folder, which must hold a local VAE too, or for hub ids any file
    # that changes with them
    watch: Path

    @model_validator(mode="after")
    def _revision_of_something(self) -> "BaseModelParams":
        if self.vae is None and self.vae_revision is not None:
            raise ValueError("vae_revision needs a vae")
        return self

    @property
    def weights(self) -> dict[str, str | None]:
        """The fields of ``pipeline.sources.ModelSource``."""
        return self.model_dump(exclude={"watch"})


class Images(Watched):
    """How every image is drawn, for preference data and benchmarks alike."""

    SOURCES = ("source",)
    source: Path | None  # folder of pictures that come with prompts.source; null: they are drawn
    watch: Path  # what DVC watches: that folder, or without one any file that stays as it is
    samples: Count  # of every prompt pair, each from a seed of its own; the best is kept
    scheduler: Literal[
        "own", "ddim", "dpm++", "euler", "unipc", "turbo", "lightning", "lcm", "tcd"
    ]  # fmt: skip
    steps: Count
    guidance: Annotated[float, Field(ge=1)]
    size: Annotated[int, Field(ge=8, multiple_of=8)]  # pixels, both sides
    precision: Literal["fp32", "fp16", "bf16"]  # of the whole pipeline; fp16 needs a GPU
    memory: list[Literal["attention_slicing", "vae_slicing", "vae_tiling"]]  # less of it, slower
    compile: bool  # torch.compile of the UNet: minutes at the start
    batch: Count  # images drawn together; halved where memory does not suffice
    shard_rows: Count  # images per Parquet file; a finished file is never drawn again

    @property
    def sampler(self) -> dict[str, object]:
        """The fields of ``pipeline.drawing.sampler.Sampler`` that this section sets."""
        others = {"source", "watch", "samples", "batch", "shard_rows"}
        return self.model_dump(exclude=others) | {"memory": tuple(self.memory)}


class Pairs(Section):
    """Gates of a preference pair; similarities are cosines of CLIP embeddings."""

    min_similarity: Annotated[float, Field(ge=-1, le=1)]  # of the two images
    max_similarity: Annotated[float, Field(ge=-1, le=1)]
    min_prompt_similarity: Annotated[float, Field(ge=-1, le=1)]  # of the two prompts
    max_prompt_similarity: Annotated[float, Field(ge=-1, le=1)]
    min_pairs: Count  # a category with fewer is an error, not a weak expert

    @model_validator(mode="after")
    def _bands_hold_something(self) -> "Pairs":
        for name in ("similarity", "prompt_similarity"):
            if getattr(self, f"min_{name}") >= getattr(self, f"max_{name}"):
                raise ValueError(f"min_{name} must be below max_{name}")
        return self


class Latents(Section):
    """What is cached for training beside the pairs."""

    benign_prompts: Path  # one prompt a line: what the model must go on drawing as it does
    views: Count  # cached per pair, the same of both sides; training draws one at each visit
    flip: bool  # every second view is a mirror image
    crop: Annotated[int, Field(ge=8, multiple_of=8)] | None  # pixels, side of a view; null: whole

    @model_validator(mode="after")
    def _views_to_tell_apart(self) -> "Latents":
        if self.flip and self.views < 2:
            raise ValueError("flip needs views: 2 or more, every second one is a mirror image")
        return self

    def check_against(self, size: int) -> None:
        """Raise ValueError unless images of ``size`` pixels have as many different views."""
        if self.crop is not None and self.crop > size:
            raise ValueError(f"latents.crop ({self.crop}) must not exceed images.size ({size})")
        if self.views > (2 if self.flip else 1) and self.crop in (None, size):
            raise ValueError(
                "latents.views: beyond an image and its mirror image they need a latents.crop "
                "smaller than images.size"
            )


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
    llm: Llm
    concepts: Concepts
    prompts: Prompts
    images: Images
    judges: Judges
    pairs: Pairs
    latents: Latents
    experts: Experts
    joint: Joint
    merge: Merge
    ship: Ship
    references: Path  # <benchmark>/ folders of reference images, for those that have some
    # prompt file by benchmark; benchmarks/<name>.yaml says how it is read (pipeline.benchmarks)
    benchmarks: Annotated[dict[Slug, Path], Field(min_length=1)]
    variants: Annotated[dict[VariantName, Variant], Field(min_length=1)]
    evaluate: Evaluate
    policy: Policy
    users: Users
    user_pairs: UserPairs
    psa: Psa
    evaluate_psa: EvaluatePsa
    dial: Dial
    alone: Alone
    scaling: Scaling
    forms: dict[VariantName, Form]  # other forms of the user adapter, for studies/dvc.yaml
    report: Report
    cluster: Cluster

    def variant(self, name: str) -> Variant:
        """A variant by name; InputError lists the known ones."""
        if name not in self.variants:
            raise InputError(
                f"unknown variant {name!r}; params.yaml has {', '.join(self.variants)}"
            )
        return self.variants[name]

    def form(self, name: str) -> Form:
        """Another form of the user adapter; InputError lists the known ones."""
        if name not in self.forms:
            raise InputError(f"unknown form {name!r}; params.yaml has {', '.join(self.forms)}")
        return self.forms[name]

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if "base" not in self.variants:
            raise ValueError("variants must hold 'base': every quality metric compares with it")
        if not self.variants["base"].is_plain_base:
            raise ValueError("variants.base must be the base model as it is, kind and path only")
        for engine in ("vllm", "openai"):
            if getattr(self.llm, engine) is None:
                raise ValueError(f"llm.{engine} must be there whatever the engine: DVC looks at it")
        if self.prompts.embeddings is not None:
            check_watched("prompts.embeddings.clip", self.prompts.embeddings.clip,
                          self.prompts.watch, self.llm.watch)  # fmt: skip
        if self.images.source and not (self.prompts.source and self.images.samples == 1):
            raise ValueError("images.source needs prompts.source, which names its pictures, and "
                             "images.samples 1")  # fmt: skip
        self._check_merge()
        self._check_studies()
        self._check_users()
        self.latents.check_against(self.images.size)
        lora, left = self.experts.lora, self.pairs.min_pairs - self.experts.watch.held_out
        if left < 1:
            raise ValueError("experts.watch.held_out must leave some of pairs.min_pairs")
        if lora.null_damping is not None and lora.null_prompts > left:
            raise ValueError("experts.lora.null_prompts must not exceed pairs.min_pairs - held_out")
        if self.llm.temperature == 0 and self.prompts.pairs_per_concept > 1:
            raise ValueError("llm.temperature 0 always gives one reply: prompts.pairs_per_concept "
                             "must be 1, or the temperature higher")  # fmt: skip
        if self.merge.calibration_prompts > self.pairs.min_pairs:
            raise ValueError("merge.calibration_prompts must not exceed pairs.min_pairs")
        return self

    def _check_merge(self) -> None:
        for name, variant in self.variants.items():
            method = variant.path.name
            if variant.path.parent.name == "merged" and method not in self.merge.recipes:
                raise ValueError(
                    f"variants.{name} needs {variant.path}, which merge.methods does not make"
                )
        method = self.merge.method
        shipped = Variant(kind="lora", path=Path("models/merged") / method)
        if self.variants.get(method) != shipped:
            raise ValueError(
                f"merge.method {method!r} ships with its metrics: variants must hold {method}: "
                f"{{kind: lora, path: {shipped.path}}}, and nothing else about it"
            )
        if not set(self.ship.chosen_on) <= self.benchmarks.keys():
            raise ValueError("ship.chosen_on must be among benchmarks")
        unknown = sorted(self.merge.weights.keys() - set(self.taxonomy.categories))
        if unknown:
            raise ValueError(f"merge.weights names {unknown[0]!r}, no category of the taxonomy")

    def _check_users(self) -> None:
        unknown = sorted(set(self.policy.floor) - set(self.taxonomy.categories))
        if unknown:
            raise ValueError(f"policy.floor names {unknown[0]!r}, no category of the taxonomy")
        if self.psa.watch.held_out >= self.pairs.min_pairs:
            raise ValueError("psa.watch.held_out must leave some of pairs.min_pairs")
        for form in self.forms.values():
            form.recipe(self.psa)
        if (judge := self.evaluate_psa.judge) is not None:
            check_watched("evaluate_psa.judge.model", judge.model, self.llm.watch)
        shown = {self.evaluate_psa.unsafe, *self.evaluate_psa.benign}
        if not shown <= self.benchmarks.keys():
            raise ValueError("evaluate_psa.unsafe and .benign must be among benchmarks")

    def _check_studies(self) -> None:
        for study in ("dial", "alone"):
            if not set(getattr(self, study).benchmarks) <= self.benchmarks.keys():
                raise ValueError(f"{study}.benchmarks must be among benchmarks")
        if not {self.scaling.unsafe, *self.scaling.benign} <= self.benchmarks.keys():
            raise ValueError("scaling.unsafe and scaling.benign must be among benchmarks")
        if max(self.scaling.experts) > len(self.taxonomy.categories):
            raise ValueError("scaling.experts must not exceed the number of categories")
        for name, path in self.dial.models.items():
            if path.parent.name == "merged" and path.name not in self.merge.recipes:
                raise ValueError(f"dial.models.{name} needs {path}, which merge.methods does not "
                                 "make")  # fmt: skip


def load_params(path: Path = PARAMS) -> Params:
    """Read and check params.yaml; InputError lists every fault with its key."""
    return read_yaml(path, Params, "run from the root of the repository")
