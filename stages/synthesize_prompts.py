"""Writes a category's unsafe/safe prompt pairs with the LLM, or takes them from prompts.source.

Every pair is reviewed; a killed run goes on after its last finished batch of concepts.
"""

import shutil
from typing import Annotated

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.llm.engines import load_engine
from pipeline.params import load_params
from pipeline.prompts import run
from pipeline.prompts.plan import print_plan
from pipeline.prompts.synthesize import Asking
from pipeline.records import PromptPair
from pipeline.storage import private_folder, write_json, write_rows
from pipeline.taxonomy import load_category


def main(category: str, *, plan: Annotated[bool, "print the expected cost and do nothing"]) -> None:
    if plan:
        return print_plan(category)
    params = load_params()
    p, unfinished = params.prompts, artifacts.unfinished_prompts(category)
    pairs, metrics = run.make_prompts(
        load_category(artifacts.category_file(artifacts.CONCEPTS, category)), p.source,
        lambda: load_engine(**params.llm.loading), Asking(**p.asking),
        run.make_rules(**p.rules), [b.prompt for b in load_prompts(params.benchmarks)],
        folder=unfinished, base_seed=params.seed, provenance=params.llm.provenance,
    )  # fmt: skip
    private_folder(artifacts.prompts(category).parent)
    write_rows(artifacts.prompts(category), PromptPair, pairs)
    write_json(artifacts.prompt_metrics(category), metrics)
    shutil.rmtree(unfinished, ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
