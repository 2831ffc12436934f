"""Where an export may be written: not into git, not over anything but an earlier export."""

import subprocess
from pathlib import Path

from pipeline.errors import InputError
from pipeline.storage import private_folder, read_json, remove_except, write_json

CARD = "README.md"  # the Hub shows it as the dataset card
ROWS = "data"  # folder of the Parquet files
MARKER = ".export.json"  # tells an export from somebody's files


def open_folder(out: Path, kind: str) -> Path:
    """Make the folder of an export, for its owner alone, and empty it of an earlier one.

    Raises InputError when git would track it, or it holds anything but an export of that kind.
    """
    folder = Path(out).resolve()
    if _is_tracked(folder):
        raise InputError(
            f"--out {out} is in a git repository that does not ignore it; choose a folder outside, "
            "or an ignored one such as generated/pairs"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {out} is a file; choose a folder")
    if folder.exists() and any(folder.iterdir()):
        _check_own(folder, out, kind)
    try:
        private_folder(folder)
    except OSError as error:
        raise InputError(f"--out: cannot make {out}: {error.strerror}") from error
    write_json(folder / MARKER, {"kind": kind})
    remove_except(folder, [folder / MARKER])
    return folder


def _is_tracked(folder: Path) -> bool:
    """Whether git would take up a file in a folder; also where git itself cannot be asked."""
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return False
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        asked = subprocess.run(
            ["git", "-C", str(there), "check-ignore", "--quiet", str(folder / ROWS / CARD)],
            capture_output=True,
        )  # fmt: skip
    except OSError:
        return True
    return asked.returncode != 0


def _check_own(folder: Path, out: Path, kind: str) -> None:
    if not (folder / MARKER).is_file():
        raise InputError(f"--out {out} is not empty, and no earlier export; choose another folder")
    earlier = read_json(folder / MARKER).get("kind")
    if earlier != kind:
        raise InputError(f"--out {out} holds an export of kind {earlier}; choose another folder")
    own = {MARKER, CARD, ROWS}
    strange = [p for p in folder.iterdir() if p.name not in own and p.suffix != ".partial"]
    if (folder / ROWS).is_dir():
        strange += [
            p for p in (folder / ROWS).iterdir() if p.suffix not in (".parquet", ".partial")
        ]
    if strange:
        raise InputError(
            f"--out {out} holds {len(strange)} files that no export wrote, first "
            f"{strange[0].name}; move them away"
        )
