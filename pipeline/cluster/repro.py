"""Runs every stage that is ready, as a Ray task in a workspace of its own."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pipeline.cluster.board import Word
from pipeline.cluster.connect import Needs, living_nodes
from pipeline.cluster.graph import Graph
from pipeline.cluster.order import Order, Outcome, Piece, Place, Shard, StageFailed
from pipeline.cluster.plan import ways_to_the_end
from pipeline.cluster.workspace import forget, run_order
from pipeline.errors import InputError, first_line

RETRIES = 3  # of a stage whose worker or node was lost
CHECK_EVERY = 30.0  # seconds between looks at whether the nodes that are left can do the rest
_LOOK_EVERY = 0.3


@dataclass
class Report:
    """What a run did."""

    ran: dict[str, Outcome] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)  # from DVC's cache of runs
    failed: dict[str, str] = field(default_factory=dict)  # with the end of the log
    left_out: list[str] = field(default_factory=list)  # because of what failed
    shards: dict[str, Piece] = field(default_factory=dict)  # by label

    @property
    def done(self) -> set[str]:
        """The stages that are up to date."""
        return {*self.ran, *self.unchanged, *self.restored}

    @property
    def lost(self) -> set[str]:
        """The stages that are not, and will not be."""
        return self.failed.keys() | self.left_out


# told what is running, by label: its last word, None before a worker has begun; and what was done
Watcher = Callable[[Mapping[str, Word | None], Report], None]


def repro(
    graph: Graph,
    place: Place,
    needs: Mapping[str, Needs],
    expected: Mapping[str, float],
    watch: Watcher,
    keep: Callable[[str, str, Outcome | None], None],
) -> Report:
    """Bring all stages of a graph up to date; Ray must be initialised.

    Among ready stages the one with the longest way to the end goes first, by ``expected`` seconds,
    if there is room for it: Ray itself would run them in the order in which they became ready.
    ``watch`` is told several times a second, ``keep`` of every stage when it ends: its label, its
    log, and what it made unless it failed, its shards' seconds included. A failed stage leaves out
    what needs it; the others go on.
    """
    import ray

    run = _Run(graph, place, needs, expected, keep)
    checked = time.monotonic()
    try:
        while run.waiting or run.ready or run.running:
            run.look_for_what_is_ready()
            run.hand_over_what_fits()
            graph.write_lock()  # at once: a worker forgets what it has made
            watch(run.at_work(), run.report)
            if run.running:
                for future in ray.wait(list(run.running), timeout=_LOOK_EVERY)[0]:
                    run.collect(future)
            if time.monotonic() - checked > CHECK_EVERY:
                run.fail_what_fits_no_node()
                checked = time.monotonic()
    finally:
        graph.write_lock()
        for future in run.running:
            ray.cancel(future, force=True)
    watch({}, run.report)
    return run.report


class _Run:
    def __init__(
        self,
        graph: Graph,
        place: Place,
        needs: Mapping[str, Needs],
        expected: Mapping[str, float],
        keep: Callable[[str, str, Outcome | None], None],
    ):
        import ray

        from pipeline.cluster.board import Board

        self._graph, self._place, self._needs, self._keep = graph, place, needs, keep
        self._urgency = ways_to_the_end({name: expected[name] for name in graph}, graph.before)
        self.waiting = sorted(graph, key=lambda name: -self._urgency[name])
        self.ready: list[Order] = []
        self.running: dict[ray.ObjectRef, Order] = {}
        self.report = Report()
        self._some_ask_for_gpus = any(asked.gpus for asked in needs.values())
        self._pieces: dict[str, dict[int, Piece]] = {}  # by stage, of those that have shards
        self._task = ray.remote(max_retries=RETRIES)(run_order)
        self._board = ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()
        self._asked, self._words = self._board.read.remote(), {}

    def at_work(self) -> dict[str, Word | None]:
        """The last word of what is running, by label."""
        import ray
        from ray.exceptions import RayError

        if ray.wait([self._asked], timeout=0)[0]:
            with suppress(RayError):  # its node was lost: Ray starts it anew on another
                self._words = ray.get(self._asked)
            self._asked = self._board.read.remote()
        return {order.label: self._words.get(order.label) for order in self.running.values()}

    def look_for_what_is_ready(self) -> None:
        """Find what has to run now; what has not may make others ready."""
        found = True
        while found:
            found = False
            for name in list(self.waiting):
                before = self._graph.before[name]
                if before & self.report.lost:
                    self.report.left_out.append(name)
                elif not before <= self.report.done:
                    continue
                elif not self._take_over(name):
                    self._prepare(name)
                self.waiting.remove(name)
                found = True

    def _take_over(self, name: str) -> bool:
        """Whether a stage is up to date, or DVC's cache of runs has what it would make."""
        if not self._graph.changed(name):
            self.report.unchanged.append(name)
        elif self._graph.restore(name):
            self.report.restored.append(name)
        else:
            return False
        forget(name, self._place)  # what a killed run has left
        return True

    def _prepare(self, name: str) -> None:
        asked = self._needs[name]
        try:
            order = replace(
                self._graph.order(name), threads=asked.threads, processes=asked.processes,
                sees_gpus=asked.gpus > 0 or not self._some_ask_for_gpus,
            )  # fmt: skip
        except StageFailed as error:
            self._fail(name, str(error))
            return
        if asked.shards == 1:
            self.ready.append(order)
            return
        self._pieces[name] = {}
        for number in range(1, asked.shards + 1):
            self.ready.append(replace(order, shard=Shard(number, asked.shards)))

    def hand_over_what_fits(self) -> None:
        """Give Ray what all nodes together have room for, the most urgent first."""
        import ray

        free = ray.cluster_resources()  # which may have grown
        for order in self.running.values():
            self._take_from(free, order)
        for order in sorted(self.ready, key=lambda order: -self._urgency[order.name]):
            asked = self._needs[order.name].resources
            if self.running and any(free.get(r, 0) < amount for r, amount in asked.items()):
                continue
            self._take_from(free, order)
            self.ready.remove(order)
            self._hand_over(order)

    def _take_from(self, free: dict[str, float], order: Order) -> None:
        for name, amount in self._needs[order.name].resources.items():
            free[name] = free.get(name, 0) - amount

    def _hand_over(self, order: Order) -> None:
        asked = self._needs[order.name]
        task = self._task.options(
            name=order.label, num_cpus=asked.cpus, num_gpus=asked.gpus,
            memory=int(asked.memory * 2**30),
        )  # fmt: skip
        self.running[task.remote(order, self._place, self._board)] = order

    def fail_what_fits_no_node(self) -> None:
        """Ray would wait for another node like the one that was lost, without a word."""
        import ray

        nodes = living_nodes()
        lost = {f: o for f, o in self.running.items() if not self._needs[o.name].fit_one_of(nodes)}
        for future in lost:
            del self.running[future]
            ray.cancel(future, force=True)
        for order in [*lost.values(), *self.ready]:
            asked = self._needs[order.name]
            if not asked.fit_one_of(nodes):
                self._fail(order.name, f"asks for {asked}, which no node has that is left")
        self.ready = [o for o in self.ready if o.name not in self.report.failed]

    def collect(self, future: object) -> None:
        """Take what a task has made, or note why it has not."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        order = self.running.pop(future)
        try:
            made = ray.get(future)
            if order.shard:
                self._collect_piece(order, made)
            else:
                self._graph.take(order.name, made)
                self.report.ran[order.name] = made
                shards = sum(p.seconds for p in self._pieces.get(order.name, {}).values())
                self._keep(order.name, made.log, replace(made, seconds=made.seconds + shards))
        except RayTaskError as error:
            known = isinstance(error.cause, StageFailed | InputError)
            self._fail(order.name, str(error.cause) if known else f"broke down:\n{error}")
        except StageFailed as error:  # what was made does not arrive here
            self._fail(order.name, str(error))
        except RayError as error:  # its worker was lost again and again
            self._fail(order.name, f"was lost: {first_line(error)}")

    def _fail(self, name: str, why: str) -> None:
        self.report.failed[name] = why
        self._keep(name, why, None)

    def _collect_piece(self, order: Order, piece: Piece) -> None:
        """The last piece has the stage run, which finds all of them."""
        pieces = self._pieces[order.name]
        pieces[order.shard.number] = piece
        self.report.shards[order.label] = piece
        self._keep(order.label, piece.log, None)
        if len(pieces) == order.shard.count and order.name not in self.report.failed:
            contents = [pieces[number].content for number in sorted(pieces)]
            self.ready.append(replace(order, shard=None, pieces=contents))
