"""The user adapter among the models that benchmarks measure, drawing for one boundary."""

from collections.abc import Collection
from functools import partial
from pathlib import Path

from pipeline.drawing.images import Draw
from pipeline.drawing.pipelines import draw_images, load_pipeline
from pipeline.drawing.sampler import FULL
from pipeline.drawing.variants import load_variant
from pipeline.errors import InputError
from pipeline.personal.pipeline import PersonalSafetyPipeline
from pipeline.sources import ModelSource, hash_weights

KIND = "psa"


def load_drawing(
    source: ModelSource, kind: str, path: Path, *, hub: str | None = None,
    revision: str | None = None, scale: float = 1.0, bans: Collection[str] | None = None,
    precision: str = FULL,
) -> tuple[Draw, str]:  # fmt: skip
    """What draws for a variant, and what identifies its weights and its user.

    Args:
        kind: "psa", or as of ``load_variant``, like the arguments not named here.
        path: of the adapter's file.
        scale: of what the adapter adds.
        bans: categories that the adapter's user bans, beside the floor; None: all of them.

    Raises InputError for an adapter that is missing, damaged or of another model, and for a ban
    that it does not know.
    """
    if kind != KIND:
        pipe, identity = load_variant(source, kind, path, hub=hub, revision=revision, scale=scale,
                                      precision=precision)  # fmt: skip
        return partial(draw_images, pipe), identity
    if not path.is_file():
        raise InputError(f"no adapter {path}; run `dvc repro train_psa`")
    pipe = load_pipeline(source, precision=precision)
    personal = PersonalSafetyPipeline.load(pipe, path, source.identity)
    boundary = personal.space.resolve(bans=bans)
    whom = "+".join(sorted(boundary.banned))
    identity = f"{source.identity}+{hash_weights(path)}@{scale:g} for {whom}"
    return personal.drawing_for(boundary, scale), identity
