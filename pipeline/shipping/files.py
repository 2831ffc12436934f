"""What is handed to others: a merged LoRA in two layouts, its model card, and the fused model."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.artifacts import LORA_FILE
from pipeline.drawing.pipelines import apply_lora, load_published, to_kohya
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.lora import Lora, load_lora, lora_tensors
from pipeline.shipping.model_card import FUSED, KOHYA_FILE, Metrics, model_card
from pipeline.sources import ModelSource
from pipeline.storage import atomic_path, remove_except, write_text

CARD_FILE = "README.md"  # the Hub shows it as the model card


def save_kohya(path: Path, lora: Lora, provenance: Mapping[str, object]) -> None:
    """Write a LoRA under kohya's keys, which ComfyUI and other programs read, atomically.

    Layers keep diffusers' names, for SDXL too. Alpha is the rank, so that deltas count once.
    Raises InputError for a DoRA, which has no low-rank delta, and when no layer is left.
    """
    from safetensors.torch import save_file

    dora = [name for name, layer in lora.items() if layer.magnitude is not None]
    if dora:
        raise InputError(
            f"a DoRA cannot be shipped (layer {dora[0]}): kohya's keys are for LoRAs; train the "
            "experts with experts.lora.dora: false"
        )
    tensors = to_kohya(lora_tensors(lora))
    if not tensors:
        raise InputError("a LoRA that changes no layer cannot be shipped; merge it again")
    # one entry, as in save_lora: equal LoRAs must be equal files
    header = {"provenance": json.dumps(provenance, sort_keys=True)}
    with atomic_path(Path(path)) as temporary:
        save_file(tensors, temporary, metadata=header)


def save_fused(folder: Path, source: ModelSource, lora: Path, scale: float = 1.0) -> None:
    """Write the base model with ``scale`` times a LoRA in its weights, as a diffusers folder.

    Float32 throughout, for half precision would round small deltas away. The base model's other
    parts, its safety checker too, are shipped as they are. ``folder`` appears as a whole.

    Raises InputError when the model or the LoRA cannot be loaded.
    """
    pipe = load_published(source)
    apply_lora(pipe, lora, scale)
    with _atomic_folder(Path(folder)) as temporary:
        pipe.save_pretrained(temporary)


@contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place when the body succeeds.

    A rename replaces no folder that holds files, so the old one steps aside first; of a run that is
    killed just then the next one puts it back.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    if aside.exists() and not folder.exists():
        aside.rename(folder)
    for left in (temporary, aside):
        shutil.rmtree(left, ignore_errors=True)
    try:
        yield temporary
        if folder.exists():
            folder.rename(aside)
        temporary.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def ship(
    folder: Path, *, lora_folder: Path, source: ModelSource, evaluation: Metrics,
    base_evaluation: Metrics, rule: str, judges: Mapping[str, str], sampler: Sampler,
    chosen_on: Sequence[str] = (), fused: bool = False, license: str | None = None,
) -> None:  # fmt: skip
    """Write everything that is handed to others into ``folder``; nothing else stays in it.

    Args:
        lora_folder: of a merged LoRA.
        source: the base model it was trained on.
        evaluation: metrics of the LoRA, ``base_evaluation`` those of the base model.
        rule, judges, sampler, chosen_on, license: as for ``model_card``.
        fused: also write the whole model, the LoRA added to its weights.

    Raises:
        InputError: there is no merged LoRA, it is of another base model, a DoRA or empty, or
            what the card must say is not known. Nothing is written then.
    """
    folder = Path(folder)
    lora, provenance = load_lora(lora_folder)
    card = model_card(
        provenance, max((len(layer.down) for layer in lora.values()), default=0), base=source,
        evaluation=evaluation, base_evaluation=base_evaluation, rule=rule, judges=judges,
        sampler=sampler, chosen_on=chosen_on, fused=fused, license=license,
    )  # fmt: skip
    if provenance["base_revision"] != source.identity:
        raise InputError(
            f"the LoRA in {lora_folder} was trained on base model {provenance['base_revision']}, "
            f"base_model is {source.identity}; run `dvc repro merge_experts`"
        )
    save_kohya(folder / KOHYA_FILE, lora, provenance)
    with atomic_path(folder / LORA_FILE) as temporary:
        shutil.copyfile(Path(lora_folder) / LORA_FILE, temporary)
    if fused:
        save_fused(folder / FUSED, source, lora_folder)
    write_text(folder / CARD_FILE, card)
    files = [LORA_FILE, KOHYA_FILE, CARD_FILE] + [FUSED] * fused
    remove_except(folder, [folder / name for name in files])
