"""The sections of params.yaml that are about users: policy, users, user_pairs, psa."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.params.llm import Llm
from pipeline.params.training import Optim
from pipeline.section import Count, NotNegative, Positive, Section, Share, Watched
from pipeline.taxonomy import Slug


class Policy(Section):
    """What no profile can lift (METHOD §3); that minors ban everything cannot be set at all."""

    floor: Annotated[list[Slug], Field(min_length=1)]  # banned for everybody


class Splits(Section):
    """Shares of the users that are not simply trained on."""

    val: Share  # never trained on; measured while training
    test_seen: Share  # trained on, and evaluated
    test_unseen: Share  # never trained on, and evaluated

    @model_validator(mode="after")
    def _some_left(self) -> "Splits":
        if self.val + self.test_seen + self.test_unseen >= 1:
            raise ValueError("splits must leave some users to train on")
        return self


class Users(Watched):
    """Who the users are and what they ban; see ``pipeline.personal.simulate``."""

    SOURCES = ("profiles", "encoder_model")
    count: Count  # simulated ones
    profiles: Path | None  # a CSV of users in place of simulated ones (personal.profiles)
    bans: Literal["rules", "llm"]  # the published rules, or the LLM, which is given them
    max_attempts: Count  # rounds of asking the LLM
    splits: Splits
    levels: Annotated[int, Field(ge=2, le=9)]  # L1, L2, ...
    encoder: Literal["structured", "llm"]
    encoder_model: str | None  # of "llm": a local folder, or a hub id with its revision
    encoder_revision: str | None
    watch: Path  # what DVC watches: profiles' file or encoder_model's folder, or one with both

    @model_validator(mode="after")
    def _model_of_llm(self) -> "Users":
        if (self.encoder == "llm") != (self.encoder_model is not None):
            raise ValueError("encoder_model is of encoder: llm, which needs it")
        if self.encoder_revision is not None and self.encoder_model is None:
            raise ValueError("encoder_revision needs an encoder_model")
        return self


class UserPairs(Section):
    """What users are taught; see ``pipeline.personal.user_pairs``."""

    allowed: Literal["preserve", "paper"]  # stay like the base model, or prefer the unsafe image
    pairs_per_category: Count  # of each user


class Adapter(Section):
    """Fields as in ``pipeline.personal.adapter.AdapterSettings``."""

    form: Literal["gated", "attention"]
    tokens: Count  # per category; with "attention" in all
    width: Count
    rank: Count
    value_rank: Count


class PersonalDpo(Section):
    """The preference objective, as ``experts.dpo``."""

    loss: Literal["diffusion_dpo", "ipo", "sft"]
    beta: Positive
    mu: Share | None
    prompt_dropout: Share
    sft_weight: NotNegative


class Beside(Section):
    """Fields as in ``pipeline.personal.step.PersonalSettings``."""

    preserve_weight: NotNegative
    allowed_share: Share
    benign_share: Share
    profile_dropout: Share
    mix_bans: bool
    route_weight: NotNegative


class PersonalWatch(Section):
    """What is measured while training, of users and pairs that are not trained on."""

    held_out: Annotated[int, Field(ge=0)]  # pairs per category
    rows: Annotated[int, Field(ge=0)]  # of the validation users, on those pairs
    dvclive: bool


class Psa(Section):
    """The user adapter and its training."""

    adapter: Adapter
    dpo: PersonalDpo
    beside: Beside
    optim: Optim
    watch: PersonalWatch

    @model_validator(mode="after")
    def _fitting(self) -> "Psa":
        gated = self.adapter.form == "gated"
        if not gated and (self.beside.mix_bans or self.beside.route_weight):
            raise ValueError("beside.mix_bans and beside.route_weight are of adapter.form: gated")
        if gated and self.beside.profile_dropout:
            raise ValueError("beside.profile_dropout is of adapter.form: attention; the null user "
                             "of a gated adapter is the base model")  # fmt: skip
        if self.beside.allowed_share + self.beside.benign_share >= 1:
            raise ValueError("beside: the shares must leave room for preferences")
        if self.optim.compile:
            raise ValueError("optim.compile: the adapter is not compiled; set it to false")
        if self.optim.patience is not None and not (self.watch.held_out and self.watch.rows):
            raise ValueError("optim.patience needs watch.held_out and watch.rows")
        return self


class Form(Section):
    """The adapter in another form, trained as long as ``psa``; of ``studies/dvc.yaml``."""

    allowed: Literal["preserve", "paper"]  # as user_pairs.allowed
    learning_rate: Positive
    adapter: Adapter
    dpo: PersonalDpo
    beside: Beside

    def recipe(self, psa: Psa) -> Psa:
        """``psa`` in this form; ValidationError where it does not fit together."""
        own = self.model_dump(exclude={"allowed", "learning_rate"})
        optim = psa.optim.model_dump() | {"learning_rate": self.learning_rate}
        return Psa.model_validate(psa.model_dump() | own | {"optim": optim})


class EvaluatePsa(Section):
    """What users are shown, and what that is compared with; see ``pipeline.personal.shown``."""

    unsafe: Slug  # benchmark
    unsafe_prompts: Count  # of each category
    benign: Annotated[list[Slug], Field(min_length=1)]  # benchmarks
    benign_prompts: Count  # of each
    terms: Count  # concepts per category that the baselines name
    suffix: Annotated[str, Field(pattern=r"\{terms\}")]  # prompt engineering: added to prompts
    judge: Llm | None  # of pass and win rates, a model that sees pictures; null: by scores
    judge_attempts: Count  # rounds of asking it
    bootstrap: Count

    @property
    def benchmarks(self) -> list[str]:
        """All of which users are shown something."""
        return [self.unsafe, *self.benign]

    @property
    def shown(self) -> dict[str, object]:
        """The arguments of ``pipeline.personal.shown.shown_prompts``."""
        return {"unsafe": self.unsafe, "unsafe_count": self.unsafe_prompts,
                "benign_count": self.benign_prompts}  # fmt: skip
