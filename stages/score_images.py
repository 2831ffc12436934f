"""Judges one category's images: raw scores of NudeNet, Q16 and CLIP, no thresholds.

A killed run goes on after the last shard of images that was judged.
"""

import shutil
from typing import Annotated

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.records import PromptPair, Score
from pipeline.scoring.pairs import look_at_pairs, score_pairs
from pipeline.scoring.panel import load_panel
from pipeline.storage import private_folder, read_rows, write_rows
from pipeline.workers import parse_worker


def main(
    category: str, *,
    shard: Annotated[str, "look at a part only, such as 2/4, the second of four workers'"] = "1/1",
) -> None:  # fmt: skip
    worker, unfinished = parse_worker(shard), artifacts.unfinished_scores(category)
    panel = load_panel(**load_params().judges.loading | {"inception": None})  # FID's, no judge
    pairs = read_rows(artifacts.prompts(category), PromptPair)
    if not worker.alone:
        look_at_pairs(pairs, artifacts.images(category), panel, unfinished, worker)
        return
    private_folder(artifacts.scores(category).parent)
    scores = score_pairs(pairs, artifacts.images(category), panel, unfinished)
    write_rows(artifacts.scores(category), Score, scores)
    shutil.rmtree(unfinished, ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
