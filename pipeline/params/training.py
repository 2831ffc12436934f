"""The sections of params.yaml that shape trained weights: experts and joint."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.section import Count, NotNegative, Positive, Section, Share

Draws = Annotated[int, Field(ge=1, le=100)]  # each has a part of the timesteps to itself
Timesteps = Annotated[list[Annotated[int, Field(ge=0, lt=1000)]], Field(min_length=1)]


class Lora(Section):
    """The trained adapter; fields as in ``pipeline.training.experts.LoraSettings``."""

    rank: Count
    alpha: Positive | None  # the delta counts alpha / rank times; null: alpha is rank
    rslora: bool  # it counts alpha / sqrt(rank) times
    dora: bool  # also train each output row's magnitude; such experts cannot be merged
    targets: Annotated[list[str], Field(min_length=1)]
    row_share: Annotated[float, Field(gt=0, le=1)]  # of each layer's output rows, per category
    null_damping: Positive | None  # how far benign inputs are projected out; null for not
    null_prompts: Count  # per category: safe prompts, and as many benign ones
    null_timesteps: Timesteps

    @model_validator(mode="after")
    def _dora_alone(self) -> "Lora":
        if self.dora and (self.null_damping is not None or self.row_share < 1):
            raise ValueError("dora needs null_damping: null and row_share: 1, which are of LoRA")
        return self


class Dpo(Section):
    """The preference objective; fields as in ``pipeline.training.preference.DpoSettings``."""

    loss: Literal["diffusion_dpo", "ipo", "sft"]
    beta: Positive  # the logit is beta/2 times the error difference, as in the papers
    mu: Share | None  # winner-preserving safeguard of Diffusion-SDPO; null switches it off
    captions: Literal["unsafe", "safe", "both"]  # which prompts condition a pair
    prompt_dropout: Share
    margin_weights: bool  # weigh a pair by how much the judge prefers its chosen side
    sft_weight: NotNegative  # weight of the chosen side's own error
    retention: NotNegative  # weight of staying like base on safe prompts
    fixed_draws: Draws | None  # random draws per row, reference errors computed once; null: fresh


class Optim(Section):
    """The optimizer and its length; fields as in ``pipeline.training.loop.TrainSettings``."""

    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    batch: Count  # rows per step, of all processes: pairs, each under one of its captions
    micro_batch: Count | None  # rows a process looks at together, gradients summed; null: its share
    max_steps: Count
    weight_decay: NotNegative
    max_grad_norm: Positive
    checkpoint_every: Count  # a multiple of log_every
    log_every: Count  # steps between two lines of metrics
    patience: Count | None  # stop after so many logs without a lower eval/loss; null: never
    max_chosen_error: Positive | None  # stop when the chosen error exceeds base's by this share
    precision: Literal["fp32", "bf16"]  # of arithmetic and frozen weights; trained ones are fp32
    gradient_checkpointing: bool  # less memory for a second forward
    compile: bool  # torch.compile for policy and reference: minutes at the start
    checkpoints: Count  # how many are kept while training
    decay_steps: Annotated[int, Field(ge=0)] = 0  # last ones, over which the rate falls to 0

    @model_validator(mode="after")
    def _checkpoints_when_logged(self) -> "Optim":
        if self.checkpoint_every % self.log_every:
            raise ValueError("checkpoint_every must be a multiple of log_every")
        return self


class Watch(Section):
    """What is measured while training; fields as in ``pipeline.training.experts.WatchSettings``."""

    held_out: Annotated[int, Field(ge=0)]  # pairs per category that are not trained on
    draws: Draws  # fixed random draws for each of them
    dvclive: bool  # also log every entry to dvclive/<run> while training


class Experts(Section):
    """Training of one expert per category."""

    lora: Lora
    dpo: Dpo
    optim: Optim
    watch: Watch

    @model_validator(mode="after")
    def _patience_needs_held_out_pairs(self) -> "Experts":
        if self.optim.patience is not None and not self.watch.held_out:
            raise ValueError("optim.patience needs watch.held_out pairs")
        return self


class Joint(Section):
    """The all-in-one baseline: as the experts but for these; all rows, alpha grown with rank."""

    rank: Count
    fixed_draws: Draws | None
    max_steps: Count
