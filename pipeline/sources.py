"""Where a model's weights come from, and what identifies them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError


@dataclass(frozen=True)
class ModelSource:
    """Where a base model comes from: diffusers folders, or hub ids with their revisions."""

    path: str
    revision: str | None = None
    vae: str | None = None  # another VAE than the model's own, such as SDXL's fp16-fix
    vae_revision: str | None = None

    @property
    def identity(self) -> str:
        """What identifies all weights; InputError for a hub id without its revision."""
        own = weights_id(self.path, self.revision, "base_model.path", "base_model.revision")
        if self.vae is None:
            return own
        vae = weights_id(self.vae, self.vae_revision, "base_model.vae", "base_model.vae_revision")
        return f"{own}+vae-{vae}"


def weights_id(path: str, revision: str | None, key: str, revision_key: str) -> str:
    """What identifies weights: the hub revision, or a hash over a local folder's files.

    Raises InputError, naming the params keys, for a hub id without a revision, since its weights
    could change unseen.
    """
    folder = Path(path)
    if not folder.is_dir():
        if revision is None:
            raise InputError(f"{key} {path!r} is no folder here; a hub id needs {revision_key}")
        return revision
    return hash_weights(folder)


def hash_weights(path: Path) -> str:
    """A hash over a file, or over a folder's files and their names."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".md")
    digest = hashlib.sha256()
    for part in files if path.is_dir() else [path]:
        digest.update(part.relative_to(folder).as_posix().encode())
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
