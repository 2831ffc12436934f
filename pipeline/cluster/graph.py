"""The part of DVC's graph that a run is about: what comes before what, and what is out of date."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cluster.order import Order, Outcome
from pipeline.cluster.workspace import is_read, overlap
from pipeline.errors import InputError, first_line
from pipeline.kept import keep_locks
from pipeline.storage import atomic_path

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage


class Graph:
    """Stages of a checkout, with all that they need, as ``dvc repro`` would go through them."""

    def __init__(self, repo: "Repo", targets: Sequence[str] = ()):
        from dvc.exceptions import DvcException
        from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

        try:
            asked = collect_stages(repo, list(targets) or ["dvc.yaml"])
            whole = get_active_graph(repo.index.graph)
        except DvcException as error:
            raise InputError(f"dvc: {first_line(error)}") from None
        self._stages: dict[str, PipelineStage] = {
            # what `dvc add` tracks has no command; it is there, as other files are
            stage.addressing: stage
            for stage in plan_repro(whole, asked)
            if stage.cmd
        }
        self.before = {
            name: frozenset(s.addressing for s in whole.successors(stage) if s.cmd)
            for name, stage in self._stages.items()
        }
        self._unwritten: list[PipelineStage] = []

    def __iter__(self) -> Iterator[str]:
        """Names as DVC addresses stages, each after those that it needs."""
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    def changed(self, name: str) -> bool:
        """Whether DVC would run a stage now; what comes before it must be up to date."""
        return self._stages[name].changed()

    def order(self, name: str) -> Order:
        """What a worker has to know to run a stage."""
        from dvc.stage.serialize import to_single_stage_lockfile

        stage = self._stages[name]
        before = [self._stages[b] for b in self.before[name]]
        made = [out for s in before for out in s.outs if is_read(stage, out)]
        own = [dep for dep in stage.deps if not any(overlap(dep, out) for out in made)]
        whole = bool(stage.outs) and all(out.hash_info for out in stage.outs)
        return Order(
            name=name,
            inputs={s.addressing: to_single_stage_lockfile(s) for s in before},
            files={out.def_path: Path(out.fs_path).read_bytes() for out in made
                   if not out.use_cache},
            own=[dep.def_path for dep in own],
            before=to_single_stage_lockfile(stage) if whole else None,
        )  # fmt: skip

    def take(self, name: str, outcome: Outcome) -> None:
        """Put what a worker made into the checkout; ``write_lock`` puts it into dvc.lock."""
        from dvc.stage.loader import StageLoader

        stage = self._stages[name]
        StageLoader.fill_from_lock(stage, outcome.entry)
        stage.cmd_changed = False
        for out in stage.outs:
            if out.use_cache:
                out.checkout(force=True)
            else:
                with atomic_path(Path(out.fs_path)) as unfinished:
                    unfinished.write_bytes(outcome.files[out.def_path])
        self._unwritten.append(stage)

    def write_lock(self) -> None:
        """Write what was taken since the last time: at once, since the file is long."""
        files = {stage.path: stage.dvcfile for stage in self._unwritten}
        if files:
            keep_locks()
        for path, file in files.items():
            stages = [stage for stage in self._unwritten if stage.path == path]
            file.dump_stages(stages, update_pipeline=False)
        self._unwritten.clear()
