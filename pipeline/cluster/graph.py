"""The part of DVC's graph that a run is about: what comes before what, and what is out of date."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cluster.exchange import bring, check_remote, send
from pipeline.cluster.lockfile import LockFile
from pipeline.cluster.order import Order, Outcome
from pipeline.cluster.workspace import is_read, overlap
from pipeline.errors import InputError, first_line
from pipeline.storage import atomic_path

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage


class Graph:
    """Stages of a checkout, with all that they need, as ``dvc repro`` would go through them.

    With ``remote``, the name of one of DVC's, workers find what they read there, and what they made
    comes from there; without, through the cache.
    """

    def __init__(self, repo: "Repo", targets: Sequence[str] = (), remote: str | None = None):
        from dvc.exceptions import DvcException
        from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

        try:
            asked = collect_stages(repo, list(targets) or ["dvc.yaml"])
            whole = get_active_graph(repo.index.graph)
        except DvcException as error:
            raise InputError(f"dvc: {first_line(error)}") from None
        if remote:
            check_remote(repo, remote)
        self._repo, self._remote = repo, remote
        every = {stage.addressing: stage for stage in plan_repro(whole, asked)}
        # what `dvc add` tracks has no command: nothing to run, but something to read
        self._stages: dict[str, PipelineStage] = {n: s for n, s in every.items() if s.cmd}
        needs = {name: [s.addressing for s in whole.successors(stage)]
                 for name, stage in self._stages.items()}  # fmt: skip
        self.before = {n: frozenset(some) & self._stages.keys() for n, some in needs.items()}
        self._reads = {name: [every[n] for n in some] for name, some in needs.items()}
        self._there: set[str] = set()  # stages whose outputs the remote has
        self._unwritten: list[PipelineStage] = []
        self._locks: dict[str, LockFile] = {}  # by the path of their dvc.yaml

    def __iter__(self) -> Iterator[str]:
        """Names as DVC addresses stages, each after those that it needs."""
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    def changed(self, name: str) -> bool:
        """Whether DVC would run a stage now; what comes before it must be up to date."""
        return self._stages[name].changed()

    def restore(self, name: str) -> bool:
        """Whether DVC's cache of runs has what a stage would make: then it is put into place.

        As ``dvc repro`` does; a stage that had ended when a run was killed is found so.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[name]
        stage.remove_outs(ignore_remove=False, force=False)
        try:
            self._repo.stage_cache.restore(stage)
        except RunCacheNotFoundError:
            return False
        stage.save()
        stage.commit()
        self._unwritten.append(stage)
        return True

    @property
    def commands(self) -> Mapping[str, str]:
        """What stages run."""
        return {name: str(stage.cmd) for name, stage in self._stages.items()}

    def order(self, name: str) -> Order:
        """What a worker has to know to run a stage; StageFailed when it would not find its inputs.

        With a remote, what the stage reads is sent there first.
        """
        from dvc.stage.serialize import to_single_stage_lockfile

        stage, before = self._stages[name], self._reads[name]
        made = [out for s in before for out in s.outs if is_read(stage, out)]
        if self._remote:
            self._send(before)
        own = [dep for dep in stage.deps if not any(overlap(dep, out) for out in made)]
        whole = bool(stage.outs) and all(out.hash_info for out in stage.outs)
        return Order(
            name=name,
            inputs={s.addressing: to_single_stage_lockfile(s) if s.cmd else None for s in before},
            files={out.def_path: Path(out.fs_path).read_bytes() for out in made
                   if not out.use_cache},
            own=[dep.def_path for dep in own],
            before=to_single_stage_lockfile(stage) if whole else None,
        )  # fmt: skip

    def _send(self, stages: Sequence["PipelineStage"]) -> None:
        for stage in stages:
            if stage.addressing not in self._there:
                send(self._repo, [out for out in stage.outs if out.use_cache], self._remote)
                self._there.add(stage.addressing)

    def take(self, name: str, outcome: Outcome) -> None:
        """Put what a worker made into the checkout; ``write_lock`` puts it into dvc.lock.

        Raises StageFailed when the remote lacks it.
        """
        from dvc.stage.loader import StageLoader

        stage = self._stages[name]
        StageLoader.fill_from_lock(stage, outcome.entry)
        stage.cmd_changed = False
        if self._remote:
            bring(self._repo, [out for out in stage.outs if out.use_cache], self._remote)
            self._there.add(name)
        for out in stage.outs:
            if out.use_cache:
                out.checkout(force=True)
            else:
                with atomic_path(Path(out.fs_path)) as unfinished:
                    unfinished.write_bytes(outcome.files[out.def_path])
        self._unwritten.append(stage)

    def write_lock(self) -> None:
        """Write what was taken since the last time."""
        from dvc.stage.serialize import to_lockfile

        for path in {stage.path for stage in self._unwritten}:
            if path not in self._locks:
                self._locks[path] = LockFile(Path(path).with_suffix(".lock"))
            lock = self._locks[path]
            for stage in self._unwritten:
                if stage.path == path:
                    lock.put(stage.name, to_lockfile(stage)[stage.name])
            lock.write()
        self._unwritten.clear()
