"""A folder of its own for a stage, with the checkout's code and DVC's cache."""

import fcntl
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.board import telling
from pipeline.cluster.command import execute
from pipeline.cluster.exchange import (
    REMOTE,
    bring,
    cut_piece,
    lay_pieces,
    note_before,
    send,
    settings,
)
from pipeline.cluster.node import cache_folder, work_folder
from pipeline.cluster.order import Order, Outcome, Piece, Place, StageFailed
from pipeline.errors import InputError
from pipeline.storage import private_folder
from pipeline.times import as_file

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

_UNPACKED = Path.cwd()  # on a worker of another machine, Ray's copy of the code
_LINKED = 1 << 18  # larger files are linked rather than copied: nobody edits them while stages run
LOG = "log.txt"


def copy_code(root: Path, folder: Path) -> None:
    """Copy what git knows, or would take up, of a checkout; InputError without git."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise InputError(f"{root} is no git repository; workers get what git knows of it")
    for name in filter(None, done.stdout.split("\0")):
        # a lock file is large, and of what a stage reads the order tells
        if (root / name).is_file() and Path(name).name != "dvc.lock":
            _copy(root / name, folder / name)


def run_order(order: Order, place: Place, board: Any) -> Outcome | Piece:
    """Run a stage in its workspace, and put what it made where the driver finds it.

    A workspace stays when the stage fails or is killed, so that the stage goes on from there when
    it is run again. One whose stage is still alive, since its Ray worker alone was lost, is waited
    for. Raises StageFailed.
    """
    start = time.monotonic()
    folder = private_folder(work_folder(place) / order.folder)
    with _alone_in(folder) as lock, telling(board, order.label, folder / LOG):
        _lay_out(folder, order, place)
        made = _run(folder, order, place, lock)
        log = (folder / LOG).read_text(errors="replace")
        shutil.rmtree(folder)
    seconds, node = time.monotonic() - start, platform.node()
    if order.shard:
        return Piece(made, log, seconds, node)
    return Outcome(*made, log, seconds, node)


def forget(name: str, place: Place) -> None:
    """Remove what a kill left of a stage's workspaces; it is up to date without them."""
    if place.work:
        for folder in (
            Path(place.work) / as_file(name),
            *Path(place.work).glob(f"{as_file(name)}:*"),
        ):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[int]:
    """Hold the lock of a workspace, which a stage inherits: it is free when no one is at work."""
    locks = private_folder(folder.parent.with_name("locks"))
    with (locks / folder.name).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def overlap(dep: "Output", out: "Output") -> bool:
    """Whether one of two paths holds the other, or they are one."""
    inside = out.fs.isin_or_eq
    return inside(dep.fs_path, out.fs_path) or inside(out.fs_path, dep.fs_path)


def is_read(stage: "PipelineStage", out: "Output") -> bool:
    """Whether an output of another stage is, or is in, or holds, what a stage reads."""
    return any(overlap(dep, out) for dep in stage.deps)


def _lay_out(folder: Path, order: Order, place: Place) -> None:
    private_folder(folder)
    code = Path(place.code) if place.code else _UNPACKED
    for entry in code.iterdir():  # of a run before this one, which other code may have been
        _remove(folder / entry.name)
    shutil.copytree(code, folder, dirs_exist_ok=True, copy_function=_copy)
    for path in order.own:
        source, target = Path(place.root) / path, folder / path
        if (code / path).exists():
            continue
        _remove(target)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=_copy)
        elif source.exists():
            _copy(source, target)
        else:
            raise StageFailed(f"needs {path}, which git does not know, no stage makes, and "
                              f"{platform.node()} does not have")  # fmt: skip
    for path, content in order.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).unlink(missing_ok=True)
        (folder / path).write_bytes(content)


def _run(
    folder: Path, order: Order, place: Place, lock: int
) -> tuple[dict[str, Any], dict[str, bytes]] | str:
    """A stage's entry of dvc.lock and its uncached outputs by path; of a shard its piece."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    here = Path.cwd()
    os.chdir(folder)
    try:
        config = settings(place, cache_folder(place), folder)
        with Repo(str(folder), config=config) as repo, repo.lock:
            stage = _prepare(repo, order, place)
            if order.shard:
                note_before(stage, folder)
                execute(stage, order, place, folder / LOG, lock)
                return cut_piece(stage, folder, place, repo)
            lay_pieces(stage, folder, order.pieces, place, repo)
            stage.remove_outs(ignore_remove=False, force=False)
            execute(stage, order, place, folder / LOG, lock)
            stage.save()
            stage.commit()
            if place.remote is not None:
                send(repo, stage.outs, REMOTE)
            return _made(stage)
    except DvcException as error:  # such as an output that the stage has not written
        raise StageFailed(f"came to nothing: {error}") from None
    finally:
        os.chdir(here)


def _prepare(repo: "Repo", order: Order, place: Place) -> "PipelineStage":
    """The stage with all that it reads in place, and what is kept of its last run."""
    from dvc.stage.loader import StageLoader

    stages = _stages(repo, {order.name, *order.inputs})
    stage = stages[order.name]
    read = []
    for name, entry in order.inputs.items():
        if entry is not None:
            StageLoader.fill_from_lock(stages[name], entry)
        read += [out for out in stages[name].outs if out.use_cache and is_read(stage, out)]
    StageLoader.fill_from_lock(stage, order.before)
    kept = [out for out in stage.outs if out.persist and out.hash_info and not out.exists]
    if place.remote is not None:
        bring(repo, read, REMOTE)
        with suppress(StageFailed):  # in a fresh clone dvc.lock names what nobody has
            bring(repo, kept, REMOTE)
    for out in read:
        out.checkout(force=True)
    for out in kept:
        if not out.changed_cache():
            out.checkout(force=True)
    return stage


def _made(stage: "PipelineStage") -> tuple[dict[str, Any], dict[str, bytes]]:
    from dvc.stage.serialize import to_single_stage_lockfile

    files = {out.def_path: Path(out.fs_path).read_bytes() for out in stage.outs
             if not out.use_cache}  # fmt: skip
    return dict(to_single_stage_lockfile(stage)), files


def _stages(repo: "Repo", names: set[str]) -> dict[str, "PipelineStage"]:
    """Stages by address; a file is read once, however many of its stages are asked for."""
    from dvc.dvcfile import DVC_FILE_SUFFIX, PROJECT_FILE, load_file

    found, files = {}, {}
    for address in sorted(names):
        if address.endswith(DVC_FILE_SUFFIX):  # of `dvc add`
            found[address] = load_file(repo, address).stage
            continue
        path, _, name = address.rpartition(":")
        path = path or PROJECT_FILE
        files[path] = files.get(path) or load_file(repo, path)
        found[address] = files[path].stages[name]
    return found


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy(source: str | Path, target: str | Path) -> str:
    """Copy a file over what is there, or link it where it is large."""
    source, target = Path(source), Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if source.stat().st_size >= _LINKED:
        try:
            os.link(source, target)
            return str(target)
        except OSError:
            pass  # another file system
    return shutil.copy2(source, target)
