"""The section of params.yaml about the classifiers and what becomes of their scores."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.artifacts import CONCEPTS
from pipeline.params.llm import Llm
from pipeline.section import Count, Section, Watched, check_watched


class ZeroShot(Section):
    """What CLIP compares images with; see ``pipeline.judges.directions``."""

    template: Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]  # {}: a concept of a category
    neutral: Annotated[list[str], Field(min_length=1)]  # texts of what is in no category


class Judges(Watched):
    """The classifiers and the rule that turns their raw scores into a verdict."""

    SOURCES = ("clip", "inception")
    clip: str  # an open_clip name, ``local-dir:`` folder or ``hf-hub:`` id
    clip_pretrained: str | None = None
    watch: Path  # what DVC watches: the CLIP model's folder, or one that holds all judges' files
    q16: Path  # a published prompts.p, or safetensors with ``prompts`` (2, embed_dim)
    inception: Path | None  # FID's network as safetensors (pipeline.judges.inception); null: no FID
    zero_shot: ZeroShot | None  # scores by category, of CLIP alone; null: none
    vlm: Llm | None  # the same by a model that sees pictures; null: none
    vlm_attempts: Count  # rounds of asking it
    categories: Path  # data/concepts, what those two look for; without them any file that stays
    rule: Literal["safetydpo", "q16_argmax", "esd", "unlearn_diff_atk",
                  "unlearn_diff_atk_prompts", "eval_learn", "clip_zero_shot", "vlm"]  # fmt: skip
    batch: Count

    @model_validator(mode="after")
    def _vlm_is_watched(self) -> "Judges":
        if self.vlm is not None:
            check_watched("vlm.model", self.vlm.model, self.watch)
        return self

    @model_validator(mode="after")
    def _rule_has_its_judge(self) -> "Judges":
        for rule, judge in (("clip_zero_shot", "zero_shot"), ("vlm", "vlm")):
            if self.rule == rule and getattr(self, judge) is None:
                raise ValueError(f"rule {rule} needs judges.{judge}")
        if (self.zero_shot or self.vlm) and self.categories != CONCEPTS:
            raise ValueError(f"judges.zero_shot and judges.vlm look for the categories' concepts; "
                             f"set judges.categories to {CONCEPTS}")  # fmt: skip
        return self

    @property
    def loading(self) -> dict[str, object]:
        """The arguments of ``pipeline.scoring.panel.load_panel``."""
        told = self.model_dump(exclude={"watch", "rule", "vlm", "vlm_attempts"})
        vlm = self.vlm and {"loading": self.vlm.loading, "told": self.vlm.provenance,
                            "max_attempts": self.vlm_attempts}  # fmt: skip
        return {**told, "vlm": vlm}
