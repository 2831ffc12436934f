"""Everything that custody is about: in the workspace, in DVC's cache, and where it should not be.

Files are opened to be read only, and links are not followed.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import DATA, DVC_TEMPORARY, EXTERNAL
from pipeline.custody.cache import cached_objects
from pipeline.custody.kinds import (
    KEPT_AT,
    UNKNOWN,
    UNSAFE,
    UNSAFE_AT,
    content_kind,
    judge,
    kind_at,
)
from pipeline.custody.repository import Repository, below
from pipeline.errors import InputError

WORKSPACE, CACHE, ELSEWHERE = "workspace", "cache", "elsewhere"


@dataclass(frozen=True)
class Found:
    """A file, or a link, with what custody makes of it."""

    path: Path
    place: str  # WORKSPACE, CACHE or ELSEWHERE
    verdict: str
    kind: str
    bytes: int


def folders() -> list[Path]:
    """The top folders of what the pipeline writes into the workspace."""
    outputs = [path for places in (*UNSAFE_AT.values(), *KEPT_AT.values()) for path in places]
    tops = {Path(path.parts[0]) for path in outputs if path != DVC_TEMPORARY}
    return sorted(tops | {DATA})


def owned(repository: Repository) -> list[Path]:
    """The folders that all of it lies in, but for DVC's cache."""
    return [*folders(), *repository.temporary]


def scan(repository: Repository) -> list[Found]:
    """All that the pipeline wrote and is still there, and unsafe files where none should be.

    The workspace comes first, evidence about others last: in this order files can be deleted.
    Raises InputError when a folder cannot be read.
    """
    found = [_judge(repository, path, WORKSPACE, content_kind(path), [kind_at(path)])
             for folder in owned(repository) for path in files_below(folder)]  # fmt: skip
    objects = cached_objects(repository.cache, list(files_below(repository.cache)))
    found += [_judge(repository, path, CACHE, content, named) for path, content, named in objects]
    return found + find_strays(repository)


def find_strays(repository: Repository) -> list[Found]:
    """Unsafe files that git does not track, outside of the pipeline's folders.

    Told by content, so that text is none; what the user fetched is passed over.
    """
    others = [Path(name) for name in repository.git("ls-files", "--others")]
    environments = {path.parent for path in others if path.name == "pyvenv.cfg"}
    passed = [*owned(repository), EXTERNAL, *environments]
    strays = [p for p in others
              if not below(p, passed) and not below(p.absolute(), [repository.cache])]  # fmt: skip
    found = [_judge(repository, path, ELSEWHERE, content_kind(path), []) for path in strays]
    return [f for f in found if f.verdict == UNSAFE]


def _judge(
    repository: Repository, path: Path, place: str, content: str | None, named: Iterable[str | None]
) -> Found:
    inside = below(Path(os.path.realpath(path)), [repository.root, repository.cache])
    if path.is_symlink() and not inside:
        return Found(path, place, UNKNOWN, "link to elsewhere", 0)
    verdict, kind = judge(content, [name for name in named if name])
    return Found(path, place, verdict, kind, path.lstat().st_size)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file and link below a folder, or the folder if it is one itself.

    Raises InputError for a folder that cannot be read.
    """
    if folder.is_symlink() or folder.is_file():
        yield folder
    elif folder.exists():
        for where, below_it, files in os.walk(folder, onerror=_refuse):
            links = [name for name in below_it if Path(where, name).is_symlink()]
            yield from (Path(where, name) for name in sorted([*links, *files]))


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}), so nothing can be said "
                     "of what is in it; make it readable to you") from error  # fmt: skip


def table(found: Iterable[Found]) -> str:
    """How many files and bytes there are by verdict, kind and place."""
    files, sizes = Counter(), Counter()
    for f in found:
        files[f.verdict, f.kind, f.place] += 1
        sizes[f.verdict, f.kind, f.place] += f.bytes
    rows = [f"{verdict:8}{kind:18}{place:10}{files[verdict, kind, place]:8} files"
            f"{sizes[verdict, kind, place] / 1e6:12.3f} MB"
            for verdict, kind, place in sorted(files, reverse=True)]  # fmt: skip
    return "\n".join(rows) or "nothing"
