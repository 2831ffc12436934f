"""How long a run of CoProV2's size would take with 1 to 64 workers: ``python -m bench.makespan``.

A simulation, as nobody has run one: every stage's time in the last ``python -m bench.default_run``
is split into a start and a cost per row, rows are counted up to the paper's, and the stages of
dvc.yaml are given to workers as ``python -m pipeline.cluster`` would, whole and with the drawing
stages in shards. Hours are those of the testbed's tiny model on a CPU; what can be read off is how
much faster more workers are, and what they wait for.
"""

import argparse
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from bench.table import RESULTS, publish, row
from pipeline.artifacts import benchmark_metrics, pair_metrics
from pipeline.cluster.plan import longest_chain, makespan
from pipeline.cluster.scale import Cost, above, bottleneck, cut, deal, kind_of, line
from pipeline.cluster.show import WORKERS
from pipeline.errors import InputError
from pipeline.figures import draw_fronts
from pipeline.params import Params, load_params
from pipeline.storage import read_json

# prompts by category in AlignGuard's published CoProv2_train.csv; 321 have several
PAIRS = {"hate": 4393, "sexual": 2712, "violence": 2141, "shocking": 2115,
         "illegal-activity": 1923, "harassment": 1801, "self-harm": 958}  # fmt: skip
PROMPTS = 8000 + 3000  # CoProv2_test.csv, and COCO captions as benchmarks/coco.yaml cuts them
REFERENCES = 3000  # photos of these captions
PROFILE = Path("profiles/sd15.yaml")  # steps, batches, users: the papers' where those say so
SHARDED = ("generate_images", "score_images", "sample_benchmark", "score_benchmark")  # by --shard
# what a stage loads before its first row, by which two stages of the last run show it: they do the
# same per row, and have different numbers of rows
LOADS_JUDGES = ("score_images", "score_benchmark", "score_references", "score_psa")
LOADS_MODEL = ("generate_images", "sample_benchmark", "sample_psa", "cache_latents", "train_expert",
               "train_joint", "train_psa", "calibrate_merge")  # fmt: skip
FIGURE = Path("assets/makespan.svg")
HOUR = 3600


@dataclass(frozen=True)
class Size:
    """How much there is to do in a run."""

    pairs: Mapping[str, int]  # by category
    prompts: int  # of all benchmarks
    references: int
    params: Params

    def rows(self, name: str) -> int:
        """The rows of an instance of a stage; 0 where its time does not grow with any."""
        stage, _, key = name.partition("@")
        p, pairs = self.params, self.pairs.get(key, 0)
        shown = (p.evaluate_psa.unsafe_prompts * len(self.pairs)
                 + p.evaluate_psa.benign_prompts * len(p.evaluate_psa.benign))  # fmt: skip
        rows = dict.fromkeys(("synthesize_prompts", "build_pairs", "cache_latents"), pairs)
        rows |= dict.fromkeys(("generate_images", "score_images"), 2 * pairs * p.images.samples)
        rows |= dict.fromkeys(("sample_benchmark", "score_benchmark", "evaluate"), self.prompts)
        rows |= dict.fromkeys(("simulate_users", "build_user_pairs"), p.users.count)
        rows |= dict.fromkeys(("sample_psa", "score_psa"), shown)  # to everybody with the same bans
        batch = p.experts.optim.batch  # rows of training are pairs times how often they are seen
        return (rows | {
            "train_expert": p.experts.optim.max_steps * batch,
            "train_joint": p.joint.max_steps * batch,
            "train_psa": p.psa.optim.max_steps * p.psa.optim.batch,
            "calibrate_merge": p.merge.calibration_prompts,
            "score_references": self.references,
        }).get(stage, 0)  # fmt: skip


def testbed() -> Size:
    """The size of the default run, by its committed metrics."""
    params = load_params()
    return Size(
        {c: read_json(pair_metrics(c))["candidates"] for c in params.taxonomy.categories},
        sum(read_json(benchmark_metrics(b))["prompts"] for b in params.benchmarks),
        sum(path.is_file() for path in params.references.rglob("*")), params,
    )  # fmt: skip


def read_graph() -> dict[str, Collection[str]]:
    """The stages of dvc.yaml, in the order of ``dvc repro``, with what each needs."""
    from dvc.repo import Repo

    from pipeline.cluster.graph import Graph

    with Repo() as repo:
        graph = Graph(repo)
        return {name: graph.before[name] for name in graph}


def last_seconds() -> dict[str, float]:
    """Seconds of one instance of each stage that ran in the last default run."""
    path = RESULTS / "default_run.json"
    if not path.exists():
        raise InputError(f"there is no {path}; python -m bench.default_run measures one")
    return {r["case"]: r["ours"] / r["n"] for r in read_json(path)["rows"]}


def split_costs(seconds: Mapping[str, float], rows: Mapping[str, float]) -> dict[str, Cost]:
    """Start and cost per row of each stage; those that did not run get the least start."""
    least = min(seconds[stage] for stage in rows if stage in seconds)
    starts = {}
    for stages in (LOADS_JUDGES, LOADS_MODEL):
        few, many = ((rows[stage], seconds[stage]) for stage in stages[:2])
        starts |= dict.fromkeys(stages, line(few, many).start)
    return {stage: above(starts.get(stage, least), n, seconds[stage]) if stage in seconds
            else Cost(least) for stage, n in rows.items()}  # fmt: skip


def in_shards(
    costs: Mapping[str, Cost], seconds: Mapping[str, float],
    before: Mapping[str, Collection[str]], size: Size, workers: int,
) -> tuple[dict[str, float], dict[str, Collection[str]]]:  # fmt: skip
    """The graph whose drawing stages are cut for so many workers."""
    pieces, finish = {}, {}
    for name in seconds:
        parts = deal(size.rows(name), size.params.images.shard_rows, workers)
        if kind_of(name) in SHARDED and len(parts) > 1:
            pieces[name] = [costs[kind_of(name)].of(rows) for rows in parts]
            finish[name] = costs[kind_of(name)].start
    return cut(seconds, before, pieces, finish)


def main() -> None:
    """Command line entry point."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    here, there = testbed(), Size(PAIRS, PROMPTS, REFERENCES, load_params(PROFILE))
    before, measured = read_graph(), last_seconds()
    rows: dict[str, list[int]] = defaultdict(list)
    for name in before:
        rows[kind_of(name)].append(here.rows(name))
    costs = split_costs(measured, {stage: mean(some) for stage, some in rows.items()})
    if "evaluate" not in measured:  # as the last run's metrics came out as they were
        cases = {r["case"]: r["ours"] for r in read_json(RESULTS / "evaluation.json")["rows"]}
        costs["evaluate"] = Cost(costs["evaluate"].start, cases["metrics of 100000 images"] / 1e5)
    seconds = {name: costs[kind_of(name)].of(there.rows(name)) for name in before}

    alone, table, curves, waits = makespan(seconds, before, 1), [], defaultdict(list), {}
    for workers in WORKERS:
        ways = {"stages whole": (seconds, before),
                "images in shards": in_shards(costs, seconds, before, there, workers)}  # fmt: skip
        for way, graph in ways.items():
            whole, case = makespan(*graph, workers), f"{workers} workers, {way}"
            table.append(row(case, whole / HOUR, alone / HOUR, "h", 1))
            curves[way].append((workers, alone / whole))
            waits[case] = "{}: {}, {:.0%} of it".format(*bottleneck(*graph, workers))
    chain = {name: round(seconds[name]) for name in longest_chain(seconds, before)}
    publish("makespan", table, waits_for=waits, longest_chain=chain, costs={
        stage: {"start": round(c.start, 2), "row": round(c.row, 5), "measured": stage in measured}
        for stage, c in costs.items()
    })  # fmt: skip
    for case, wait in waits.items():
        print(f"{case}: {wait}")
    print("longest chain:", " -> ".join(f"{name} {s} s" for name, s in chain.items()))
    print("not in the last default run, taken for little more than a start:",
          ", ".join(sorted(costs.keys() - measured.keys())))  # fmt: skip
    print("Hours are those of the testbed's tiny model on a CPU, by rows; no GPU was measured.")
    draw_fronts(FIGURE, curves, "workers", "times as fast as one worker")


if __name__ == "__main__":
    main()
