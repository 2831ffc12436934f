"""A folder of its own for a stage, with the checkout's code and DVC's cache."""

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import end_with_parent
from pipeline.cluster.order import Order, Outcome, Place, StageFailed
from pipeline.errors import InputError
from pipeline.storage import private_folder
from pipeline.times import as_file

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

_UNPACKED = Path.cwd()  # on a worker of another machine, Ray's copy of the code
_LINKED = 1 << 18  # larger files are linked rather than copied: nobody edits them while stages run
_TAIL = 2000  # characters of a log that an error quotes
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


def run_order(order: Order, place: Place) -> Outcome:
    """Run a stage in its workspace, and put what it made into the cache.

    A workspace stays when the stage fails or is killed, so that the stage goes on from there when
    it is run again. Raises StageFailed.
    """
    start = time.monotonic()
    folder = Path(place.work) / as_file(order.name)
    _lay_out(folder, order, place)
    files, entry, cached = _run(folder, order, place)
    log = (folder / LOG).read_text(errors="replace")
    shutil.rmtree(folder)
    return Outcome(entry, files, log, time.monotonic() - start, platform.node(), cached)


def overlap(dep: "Output", out: "Output") -> bool:
    """Whether one of two paths holds the other, or they are one."""
    inside = out.fs.isin_or_eq
    return inside(dep.fs_path, out.fs_path) or inside(out.fs_path, dep.fs_path)


def is_read(stage: "PipelineStage", out: "Output") -> bool:
    """Whether an output of another stage is, or is in, or holds, what a stage reads."""
    return any(overlap(dep, out) for dep in stage.deps)


def tail(log: str) -> str:
    """The end of a log; of lines that were written over, as those of progress bars, the last."""
    return "\n".join(line.rsplit("\r", 1)[-1] for line in log[-_TAIL:].splitlines())


def last_line(log: Path) -> str:
    """The last words of a log that is being written, none when it is not here."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        words = tail(file.read().decode(errors="replace")).splitlines()
    return next((line for line in reversed(words) if line.strip()), "")


def check_cache(cache: Path) -> None:
    """InputError unless one can write to DVC's cache."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"DVC's cache {cache} cannot be written to on {platform.node()} ({error.strerror}); "
            "it must be a folder that all nodes share"
        ) from None


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
    (folder / ".dvc/config.local").write_text(
        f"[core]\n    no_scm = true\n    site_cache_dir = {folder}/.dvc/site\n"
        f"[cache]\n    dir = {place.cache}\n"
    )


def _run(folder: Path, order: Order, place: Place) -> tuple[dict[str, bytes], dict, bool]:
    """The uncached outputs by path, the stage's entry of dvc.lock, and whether it needed no run."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.loader import StageLoader
    from dvc.stage.serialize import to_single_stage_lockfile

    here = Path.cwd()
    os.chdir(folder)
    try:
        with Repo(str(folder)) as repo, repo.lock:
            stages = _stages(repo, {order.name, *order.inputs})
            stage = stages[order.name]
            for name, entry in order.inputs.items():
                StageLoader.fill_from_lock(stages[name], entry)
                for out in stages[name].outs:
                    if out.use_cache and is_read(stage, out):
                        out.checkout(force=True)
            StageLoader.fill_from_lock(stage, order.before)
            for out in stage.outs:
                # in a fresh clone dvc.lock names what the cache does not have
                if out.persist and out.hash_info and not out.exists and not out.changed_cache():
                    out.checkout(force=True)
            stage.remove_outs(ignore_remove=False, force=False)
            cached = _restore(stage, folder / LOG)
            if not cached:
                _execute(stage, folder / LOG, place)
            stage.save()
            stage.commit()
            files = {out.def_path: Path(out.fs_path).read_bytes()
                     for out in stage.outs if not out.use_cache}  # fmt: skip
            return files, dict(to_single_stage_lockfile(stage)), cached
    except DvcException as error:  # such as an output that the stage has not written
        raise StageFailed(f"came to nothing: {error}") from None
    finally:
        os.chdir(here)


def _restore(stage: "PipelineStage", log: Path) -> bool:
    """Take what a run before made of the same inputs: one that was killed is not in dvc.lock."""
    from dvc.stage.cache import RunCacheNotFoundError

    try:
        stage.repo.stage_cache.restore(stage)
    except RunCacheNotFoundError:
        return False
    log.write_text("was made before: taken from DVC's cache\n")
    return True


def _stages(repo: "Repo", names: set[str]) -> dict[str, "PipelineStage"]:
    """Stages by address; a file is read once, however many of its stages are asked for."""
    from dvc.dvcfile import PROJECT_FILE, load_file

    found, files = {}, {}
    for address in sorted(names):
        path, _, name = address.rpartition(":")
        path = path or PROJECT_FILE
        files[path] = files.get(path) or load_file(repo, path)
        found[address] = files[path].stages[name]
    return found


def _execute(stage: "PipelineStage", log: Path, place: Place) -> None:
    """Run the stage's command as DVC does, but into a log, and never longer than this process."""
    from dvc.stage.run import prepare_kwargs

    start = prepare_kwargs(stage)
    environment = start["env"] | place.environment
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    start["env"] = {name: value for name, value in environment.items() if value is not None}
    for line in stage.cmd if isinstance(stage.cmd, list) else stage.cmd.splitlines():
        simple = not set(line) & set(";&|<>")  # then the shell can make way for it
        with log.open("ab") as stream:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {line}" if simple else line], **start, stdout=stream,
                stderr=subprocess.STDOUT, preexec_fn=end_with_parent,
            )  # fmt: skip
            status = process.wait()
        if status:
            raise StageFailed(
                f"ended with status {status}:\n{tail(log.read_text(errors='replace'))}"
            )


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
