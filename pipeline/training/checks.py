"""What must hold of data, model and machine before and while something is trained."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.memory import must_fit
from pipeline.training.processes import Processes


def training_must_fit(section: str) -> AbstractContextManager[None]:
    """``must_fit`` for training, with what to change in that params section."""
    return must_fit(
        "training",
        f"set, or lower, {section}.optim.micro_batch, which takes a batch in parts; or set "
        f"{section}.optim.gradient_checkpointing: true or {section}.optim.precision: bf16; or "
        "cache smaller views (latents.crop)",
    )


def unet_must_fit() -> AbstractContextManager[None]:
    """``must_fit`` for loading what is trained."""
    return must_fit(
        "the UNet of base_model.path", "free memory that others hold, or take more of it"
    )


def check_batch(batch: int, processes: Processes, section: str) -> None:
    """Raise InputError unless every process has a row of each batch."""
    if batch < processes.count:
        raise InputError(
            f"{section}.optim.batch ({batch}) must be at least the number of processes "
            f"({processes.count})"
        )


def check_latents(unet, latents: LatentPairs, category: str) -> None:
    """Raise InputError unless there are pairs, of a known judge's preference, that fit the UNet."""
    if not len(latents):
        raise InputError(
            f"{category} has no pairs to train on; run `dvc repro build_pairs` and see its metrics"
        )
    if not latents.judge_spec:
        raise InputError(
            f"the latents of {category} do not say which judge preferred their chosen images; run "
            "`dvc repro cache_latents`"
        )
    if (latents.margin < 0).float().mean() > 0.5:
        raise InputError(
            f"the judge finds most chosen images of {category} worse than the "
            "rejected ones: the preference is reversed; run `dvc repro build_pairs`"
        )
    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    if latents.latent_shape[0] != channels or latents.prompt_embeds.shape[2] != width:
        raise InputError(
            f"latents have {latents.latent_shape[0]} channels and text width "
            f"{latents.prompt_embeds.shape[2]}, the UNet of base_model.path {channels} and {width}"
        )


def check_base(pairs: Mapping[str, LatentPairs], base_revision: str) -> None:
    """Raise InputError unless all latents, by category, were made with that base model."""
    for category, latents in pairs.items():
        if latents.base_revision != base_revision:
            raise InputError(
                f"the latents of {category} come from base model {latents.base_revision}, "
                f"base_model is {base_revision}; run `dvc repro cache_latents`"
            )
