"""The section of params.yaml that ``python -m pipeline.cluster`` reads, and no stage."""

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.section import Section

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Resources(Section):
    """What a stage takes of a node while it runs."""

    cpus: Amount
    gpus: Amount
    memory: Amount  # GiB


class Cluster(Section):
    """Stages side by side."""

    resources: dict[str, Resources]  # by stage, without what follows the @

    @model_validator(mode="after")
    def _has_a_default(self) -> "Cluster":
        if "default" not in self.resources:
            raise ValueError("resources must have a default, for all stages that it does not name")
        return self

    def needs(self, stage: str) -> dict[str, float]:
        """The fields of ``pipeline.cluster.repro.Needs`` of a stage, by DVC's name for it."""
        kind = stage.rpartition(":")[2].partition("@")[0]
        return self.resources.get(kind, self.resources["default"]).model_dump()
