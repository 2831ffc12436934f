"""How what stages make gets from node to node: DVC's cache, or a remote where they share none."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.order import Place, StageFailed
from pipeline.errors import InputError, first_line
from pipeline.storage import private_folder, read_json, write_json

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

REMOTE = "exchange"  # what workspaces call it
UNFINISHED = ".checkpoints"  # where stages keep what they take up again
_PIECE = ".piece"  # what a shard made, in its workspace
_PIECES = ".pieces"  # what all shards made, in that of the stage
_BEFORE = ".before.json"  # what there was when a shard began
State = dict[str, list[int]]  # size and time of change by path


def settings(place: Place, cache: Path, folder: Path) -> dict[str, Any]:
    """DVC's configuration of a workspace."""
    remotes = {} if place.remote is None else {REMOTE: dict(place.remote)}
    core = {"no_scm": True, "site_cache_dir": str(folder / ".dvc/site")}
    return {"core": core, "cache": {"dir": str(cache)}, "remote": remotes}


def check_remote(repo: "Repo", remote: str) -> None:
    """InputError when DVC knows no such remote, or it does not answer."""
    known = list(repo.config["remote"])
    if remote not in known:
        raise InputError(
            f"cluster.remote in params.yaml is {remote!r}, which is none of DVC's "
            f"({', '.join(known) or 'there are none'}); add it with `dvc remote add`"
        )
    try:
        place = repo.cloud.get_remote_odb(remote)
        place.fs.exists(place.path)
    except Exception as error:  # of any of the libraries behind remotes
        raise InputError(
            f"the remote {_url(repo, remote)} cannot be reached: {first_line(error)}"
        ) from None


def send(repo: "Repo", outs: Iterable["Output"], remote: str) -> None:
    """Copy what outputs are in the cache to a remote; what is there already is not sent."""
    failed = repo.cloud.push(_objects(outs, remote), remote=remote).failed
    if failed:
        raise StageFailed(f"could not send {len(failed)} files to the remote {_url(repo, remote)}")


def bring(repo: "Repo", outs: Iterable["Output"], remote: str) -> None:
    """Copy what outputs were, by their hashes, from a remote to the cache.

    Raises StageFailed when the remote lacks something.
    """
    outs = [out for out in outs if out.hash_info and out.changed_cache()]
    failed = repo.cloud.pull(_objects(outs, remote), remote=remote).failed if outs else ()
    missing = [out.def_path for out in outs if out.changed_cache()]
    if failed or missing:
        raise StageFailed(f"the remote {_url(repo, remote)} lacks {', '.join(missing)}")


def _objects(outs: Iterable["Output"], remote: str) -> set:
    found = [out.get_used_objs(remote=remote) for out in outs]
    return {object_ for by_place in found for some in by_place.values() for object_ in some}


def _url(repo: "Repo", remote: str) -> str:
    return str(repo.config["remote"][remote]["url"])


def growing(stage: "PipelineStage") -> list[str]:
    """Folders of a workspace in which a stage finds what shards of it made."""
    return [*(out.def_path for out in stage.outs if out.persist), UNFINISHED]


def note_before(stage: "PipelineStage", folder: Path) -> None:
    """Keep what a workspace holds before a shard begins; one that goes on knows it already."""
    if not (folder / _BEFORE).exists():
        write_json(folder / _BEFORE, _state(folder, growing(stage)))


def _state(folder: Path, parts: Sequence[str]) -> State:
    """What files there are, and what shows that one was written anew."""
    files = (file for part in parts for file in (folder / part).rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): [file.stat().st_size, file.stat().st_mtime_ns]
        for file in files
    }


def cut_piece(stage: "PipelineStage", folder: Path, place: Place, repo: "Repo") -> str:
    """Put what a shard has written into the cache; returns the folder's hash."""
    before, piece = read_json(folder / _BEFORE), folder / _PIECE
    shutil.rmtree(piece, ignore_errors=True)
    for number, part in enumerate(growing(stage)):
        private_folder(piece / str(number))
        for name, seen in _state(folder, [part]).items():
            if before.get(name) != seen:
                target = piece / str(number) / Path(name).relative_to(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(folder / name, target)
    (piece / "made").touch()  # DVC keeps no empty folder
    out = _folder(stage, _PIECE)
    out.save()
    out.commit(relink=False)
    if place.remote is not None:
        send(repo, [out], REMOTE)
    return out.hash_info.value


def lay_pieces(
    stage: "PipelineStage", folder: Path, pieces: Sequence[str], place: Place, repo: "Repo"
) -> None:
    """Put what shards made where the stage looks for it."""
    from dvc_data.hashfile.hash_info import HashInfo

    for content in pieces:
        out = _folder(stage, _PIECES)
        out.hash_info = HashInfo("md5", content)
        if place.remote is not None:
            bring(repo, [out], REMOTE)
        out.checkout(force=True)
        for number, part in enumerate(growing(stage)):
            for file in (folder / _PIECES / str(number)).rglob("*"):
                if file.is_file():
                    target = folder / part / file.relative_to(folder / _PIECES / str(number))
                    private_folder(target.parent)
                    target.unlink(missing_ok=True)
                    shutil.copy2(file, target)
    shutil.rmtree(folder / _PIECES, ignore_errors=True)


def _folder(stage: "PipelineStage", path: str) -> "Output":
    from dvc.output import Output

    return Output(stage, path, cache=True)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A section of DVC's configuration without classes of its own."""
    return {key: str(value) if isinstance(value, str) else value for key, value in values.items()}
