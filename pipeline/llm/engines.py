"""The engines by name. Each imports its library when it is loaded, not before."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest, Engine, Sampling
from pipeline.llm.openai import OpenAiEngine
from pipeline.llm.transformers import TransformersEngine
from pipeline.llm.vllm import VllmEngine

ENGINES: dict[str, Callable[..., Engine]] = {
    "transformers": TransformersEngine, "vllm": VllmEngine, "openai": OpenAiEngine,
}  # fmt: skip


def load_engine(
    engine: str, model: str, revision: str | None, sampling: Mapping[str, float],
    options: Mapping[str, object],
) -> Engine:  # fmt: skip
    """Load the named engine.

    ``sampling`` holds the fields of ``Sampling``, ``options`` the engine's own arguments; see
    ``pipeline.params.llm``.

    Raises InputError for an unknown name, with the known ones; for a model of a hub without its
    revision, as its weights could change unseen; and for whatever keeps the model from being loaded
    or reached.
    """
    if engine not in ENGINES:
        raise InputError(f"unknown LLM engine {engine!r}; known: {', '.join(ENGINES)}")
    if engine != "openai" and revision is None and not Path(model).is_dir():
        raise InputError(f"llm.model {model!r} is no folder here; a hub id needs llm.revision")
    return ENGINES[engine](model, revision, Sampling(**sampling), **options)


class OnDemand:
    """An engine that is loaded when it is first asked, which a run that goes on may never do."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load, self._engine = load, None

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """As of ``Engine``; raises as ``load`` does, too."""
        self._engine = self._engine or self._load()
        return self._engine.generate(requests)
