"""The sections of params.yaml that say how experts are merged and shipped."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.params.training import Timesteps
from pipeline.section import Count, NotNegative, Positive, Section
from pipeline.taxonomy import Slug

Density = Annotated[float, Field(gt=0, le=1)]


class Recipe(Section):
    """What all methods have; see ``pipeline.merging.methods.MergeRecipe``.

    ``weights`` of ``Merge`` scale the experts before any method: an expert with a smaller one also
    wins fewer rows in Co-Merge and entries elsewhere, and 0 takes it out of the count of a mean.
    """

    strength: Positive = 1.0  # factor on the merged delta
    rank: Count | None = None  # of the merged LoRA; null: exact, or the experts' ranks' sum


class CoMerge(Recipe):
    """``pipeline.merging.methods.co_merge``."""

    activation: Literal["count", "magnitude"] = "count"  # inputs won, or mean |activation|


class Sparse(Recipe):
    """``pipeline.merging.methods.ties`` and ``dare``."""

    density: Density  # share of each delta's entries that is kept


class Svd(Recipe):
    """``pipeline.merging.methods.svd``."""

    rank: Count


class RegMean(Recipe):
    """``pipeline.merging.methods.regmean``."""

    benign_weight: NotNegative = 1.0  # of asking for no effect on benign inputs
    ridge: Positive = 1e-4  # of the mean diagonal


class MergeMethods(Section):
    """The methods that are merged by, each into ``models/merged/<method>``."""

    co_merge: CoMerge | None = None
    max_magnitude: Recipe | None = None
    average: Recipe | None = None
    weighted: Recipe | None = None
    ties: Sparse | None = None
    dare: Sparse | None = None
    svd: Svd | None = None
    regmean: RegMean | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        unknown = sorted(set(values) - set(cls.model_fields)) if isinstance(values, dict) else []
        if unknown:
            raise ValueError(
                f"unknown merge method {unknown[0]!r}; known: {', '.join(cls.model_fields)}"
            )
        for name, value in values.items() if isinstance(values, dict) else ():
            if value is None:
                raise ValueError(f"merge.methods.{name} is empty; {{}} takes the defaults")
        return values


class Merge(Section):
    """Merging the experts; ``pipeline.merging.preparation`` is all that comes before a method."""

    method: str  # the one that ships
    methods: MergeMethods
    weights: dict[Slug, NotNegative]  # by category, 1 unless given; 0 leaves the expert out
    layers: Annotated[list[str], Field(min_length=1)]  # patterns of layers, "*" for all
    null_damping: Positive | None  # as experts.lora's, over the safe prompts of all categories
    equalise: bool  # scale experts to answer equally strongly to their own unsafe prompts
    calibration_prompts: Count  # pairs per category: their prompts, and as many benign ones
    calibration_timesteps: Timesteps
    calibration_batch: Count  # latents that the UNet denoises together

    @model_validator(mode="after")
    def _method_is_made(self) -> "Merge":
        if self.method not in self.recipes:
            raise ValueError(
                f"method {self.method!r} is not among methods: {', '.join(self.recipes)}"
            )
        return self

    @property
    def recipes(self) -> dict[str, dict[str, object]]:
        """Options by method, as ``pipeline.merging.methods.MergeRecipe.of`` takes them."""
        return self.methods.model_dump(exclude_none=True)

    @property
    def preparation(self) -> dict[str, object]:
        """The fields of ``pipeline.merging.preparation.Preparation``."""
        return self.model_dump(include={"weights", "layers", "null_damping", "equalise"})


class Ship(Section):
    """What is shipped beside the LoRA; see ``pipeline.shipping``."""

    fused: bool  # also the whole model with the LoRA in its weights
    license: str | None  # of the LoRA, as the Hub names licenses
    chosen_on: list[Slug]  # benchmarks that settings were chosen on: the card says so
