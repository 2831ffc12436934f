"""Judges look at one model variant's benchmark images: raw scores, no thresholds."""

from typing import Annotated

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.scoring.benchmarks import judge_folder
from pipeline.scoring.panel import load_panel
from pipeline.workers import parse_worker


def main(
    variant: str, *,
    shard: Annotated[str, "look at a part only, such as 2/4, the second of four workers'"] = "1/1",
) -> None:  # fmt: skip
    worker, panel = parse_worker(shard), load_panel(**load_params().judges.loading)
    judge_folder(artifacts.benchmark(variant), artifacts.benchmark_scores(variant), panel, worker)


if __name__ == "__main__":
    run_stage(main)
