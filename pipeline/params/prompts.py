"""The sections of params.yaml that shape concepts and prompts."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from pipeline.section import Count, Section, Share, Watched


class Concepts(Watched):
    """Where concepts come from; see ``pipeline.prompts.concepts``."""

    SOURCES = ("file",)
    file: Path | None  # concept,category[,split] for categories whose file lists none; null: LLM
    watch: Path  # what DVC watches: that file, or without one any that is there
    count: Count  # per category, where the LLM proposes them
    per_reply: Count
    max_attempts: Count  # rounds of asking for a category
    val: Share  # of concepts without a split of their own, by hash
    test_unseen: Share
    exclusive: bool  # no prompt of a category names a concept of another

    @model_validator(mode="after")
    def _leaves_some(self) -> "Concepts":
        if self.val + self.test_unseen >= 1:
            raise ValueError("val and test_unseen must leave some concepts to train on")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Share by split, but for that of training."""
        return self.model_dump(include={"val", "test_unseen"})


class Band(Section):
    """Limits of the cosine of a pair's two text embeddings; as ``pipeline.prompts.check.Band``."""

    clip: str  # as judges.clip; a local one within prompts.watch or llm.watch
    clip_pretrained: str | None
    batch: Count  # texts at once
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]

    @model_validator(mode="after")
    def _not_empty(self) -> "Band":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class Prompts(Watched):
    """Prompt synthesis; see ``pipeline.prompts``."""

    SOURCES = ("source",)
    source: Path | None  # a file of pairs to take instead of asking (pipeline.prompts.imports)
    watch: Path  # as concepts.watch
    pairs_per_concept: Count
    concepts_at_once: Count  # asked for together; a killed run loses at most these
    max_attempts: Count  # rounds of asking before a pair is given up
    feedback: bool  # a failed pair is asked again with the reason
    self_check: bool  # the model also judges both prompts of each pair
    min_words: Count
    max_words: Count
    min_similarity: Share  # word-level Jaccard of the two prompts
    max_edits: Count  # words that differ
    language: str | None  # of both prompts, ISO 639-1; null: any
    near_duplicate: Annotated[float, Field(gt=0, lt=1)] | None  # Jaccard; null: exact copies only
    embeddings: Band | None  # null: not compared

    @model_validator(mode="after")
    def _possible_lengths(self) -> "Prompts":
        if self.min_words > self.max_words:
            raise ValueError("min_words must not exceed max_words")
        return self

    @property
    def rules(self) -> dict[str, object]:
        """The arguments of ``pipeline.prompts.run.make_rules``."""
        return self.model_dump(include={"min_words", "max_words", "min_similarity", "max_edits",
                                        "language", "near_duplicate", "embeddings"})  # fmt: skip

    @property
    def asking(self) -> dict[str, object]:
        """The fields of ``pipeline.prompts.synthesize.Asking``."""
        return self.model_dump(include={"pairs_per_concept", "concepts_at_once", "max_attempts",
                                        "feedback", "self_check"})  # fmt: skip
