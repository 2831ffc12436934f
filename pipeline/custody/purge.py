"""Deletes the unsafe side: from the workspace, from DVC's cache, from what runs left unfinished."""

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.custody.kinds import UNSAFE
from pipeline.custody.scan import ELSEWHERE, Found
from pipeline.errors import InputError


def purge(found: Sequence[Found], workspaces: Sequence[Path]) -> None:
    """Delete what ``scan`` found unsafe, in its order, and what is empty then of ``workspaces``.

    What lies elsewhere stays, as nobody knows whose it is. A purge that was killed can be repeated.
    Raises InputError for a file that cannot be deleted.
    """
    for f in found:
        if f.verdict == UNSAFE and f.place != ELSEWHERE:
            _delete(f.path)
    for workspace in workspaces:
        for folder, _, _ in os.walk(workspace, topdown=False):
            if not os.listdir(folder):
                os.rmdir(folder)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be deleted ({error.strerror}); mend that, then run this "
                         "again, which goes on from here") from error  # fmt: skip
