"""The section of params.yaml about the language model."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.section import Count, Positive, Section, Watched

# options that replies depend on; the others are of speed and memory
SHAPING = {"dtype", "reproducible", "base_url"}


class TransformersOptions(Section):
    """A local model, no JSON schema enforced; see ``pipeline.llm.transformers``."""

    batch: Count  # requests at once


class VllmOptions(Section):
    """vLLM in the stage's process; see ``pipeline.llm.vllm``."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    tensor_parallel: Count  # GPUs that share the model
    gpu_memory: Annotated[float, Field(gt=0, le=1)]  # share of each GPU's memory
    max_context: Count | None  # tokens; null: as the model has
    eager: bool  # true: no CUDA graphs, which start faster and run slower
    reproducible: bool  # replies do not depend on their batch; slower, needs a recent GPU


class OpenAiOptions(Section):
    """A server; see ``pipeline.llm.openai``. Its key comes from OPENAI_API_KEY alone."""

    base_url: str
    concurrency: Count  # requests in flight
    timeout: Positive  # seconds per request
    retries: Annotated[int, Field(ge=0)]  # of a request that fails, with growing pauses


class Llm(Watched):
    """Which language model is asked, and how it samples."""

    SOURCES = ("model",)
    engine: Literal["transformers", "vllm", "openai"]
    model: str
    revision: str | None = None
    watch: Path  # as base_model.watch
    temperature: Annotated[float, Field(ge=0, le=2)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    transformers: TransformersOptions | None = None
    vllm: VllmOptions | None = None
    openai: OpenAiOptions | None = None

    @model_validator(mode="after")
    def _engine_has_options(self) -> "Llm":
        if getattr(self, self.engine) is None:
            raise ValueError(f"engine {self.engine} needs the section llm.{self.engine}")
        return self

    @property
    def loading(self) -> dict[str, object]:
        """The arguments of ``pipeline.llm.engines.load_engine``."""
        return {
            "engine": self.engine, "model": self.model, "revision": self.revision,
            "sampling": self.model_dump(include={"temperature", "top_p", "max_new_tokens"}),
            "options": getattr(self, self.engine).model_dump(),
        }  # fmt: skip

    @property
    def provenance(self) -> dict[str, object]:
        """Who writes, and how it samples; as of ``pipeline.prompts.run.make_prompts``."""
        told = {"engine": self.engine, "model": self.model, "revision": self.revision or ""}
        options = getattr(self, self.engine).model_dump(include=SHAPING)
        return {**told, "sampling": self.loading["sampling"], "options": options}
