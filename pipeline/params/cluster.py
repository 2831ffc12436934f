"""The section of params.yaml that ``python -m pipeline.cluster`` reads, and no stage."""

from pydantic import model_validator

from pipeline.section import Count, NotNegative, Section


class Resources(Section):
    """What a stage takes of a node while it runs."""

    cpus: NotNegative
    gpus: NotNegative
    memory: NotNegative  # GiB
    processes: Count = 1  # that a training runs with, one for each of its GPUs
    shards: Count = 1  # workers that draw or judge a part of the stage's images each

    @model_validator(mode="after")
    def _has_a_gpu_for_each_process(self) -> "Resources":
        if 0 < self.gpus < self.processes:
            raise ValueError(f"{self.processes} processes share {self.gpus:g} GPUs; give each one")
        return self


class Cluster(Section):
    """Stages side by side."""

    remote: str | None  # DVC's name of the one that nodes exchange data through; None: its cache
    resources: dict[str, Resources]  # by stage, without what follows the @

    @model_validator(mode="after")
    def _has_a_default(self) -> "Cluster":
        if "default" not in self.resources:
            raise ValueError("resources must have a default, for all stages that it does not name")
        return self

    def needs(self, stage: str) -> dict[str, float]:
        """The fields of ``pipeline.cluster.connect.Needs`` of a stage, by DVC's name for it."""
        kind = stage.rpartition(":")[2].partition("@")[0]
        return self.resources.get(kind, self.resources["default"]).model_dump()
