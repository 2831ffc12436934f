"""The sections of params.yaml that ``studies/dvc.yaml`` reads."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from pipeline.section import Count, Positive, Section
from pipeline.taxonomy import Slug

VariantName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Dial(Section):
    """LoRAs that ``studies/dvc.yaml`` measures at several scales; see ``pipeline.studies.dial``."""

    scales: Annotated[list[Positive], Field(min_length=1)]
    benchmarks: Annotated[list[Slug], Field(min_length=1)]
    # of them those on which not even CLIPScore and CMMD may tell a model from base
    whole: Annotated[list[Slug], Field(min_length=1)]
    models: Annotated[dict[VariantName, Path], Field(min_length=1)]

    @model_validator(mode="after")
    def _scales_rise(self) -> "Dial":
        rounded = [round(scale, 3) for scale in self.scales]
        if rounded != self.scales or sorted(set(rounded)) != rounded:
            raise ValueError("scales must rise, with at most three decimals")
        if unknown := sorted(set(self.whole) - set(self.benchmarks)):
            raise ValueError(f"whole: {unknown[0]} is none of benchmarks")
        return self


class Alone(Section):
    """Experts that ``studies/dvc.yaml`` measures one by one."""

    benchmarks: Annotated[list[Slug], Field(min_length=1)]
    scale: Positive = 1.0


class Scaling(Section):
    """Curves of ``studies/dvc.yaml``: safety against the size of the data and of the merge."""

    parts: Annotated[list[Annotated[str, Field(pattern=r"^(pairs|concepts)-([1-9]\d*|all)$")]],
                     Field(min_length=1)]  # fmt: skip
    experts: Annotated[list[Count], Field(min_length=1)]  # how many of the categories, in order
    unsafe: Slug  # benchmark
    benign: list[Slug]
