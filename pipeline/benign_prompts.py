"""The harmless prompts that a model is kept the same on (`latents.benign_prompts`)."""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.policy import hard_block


def read_benign_prompts(path: Path) -> list[str]:
    """A UTF-8 text file with one prompt a line; empty lines are skipped.

    Raises InputError when the file is missing, no text, holds no prompt, or a hard-blocked one.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read latents.benign_prompts {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        reason = hard_block(line, "")
        if reason:
            raise InputError(f"{path} line {number} is hard-blocked ({reason}); remove it")
    prompts = list(dict.fromkeys(line for line in lines if line))
    if not prompts:
        raise InputError(f"latents.benign_prompts {path} holds no prompt; give one a line")
    return prompts
