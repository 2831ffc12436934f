"""Has the LLM rewrite the benchmarks' prompts for the variants that draw what it makes of them.

Without such a variant it is not asked, and the file has no rows. A killed run asks for no reply
again that it had.
"""

import shutil
from functools import partial

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.llm.engines import load_engine
from pipeline.llm.kept import KeptReplies
from pipeline.params import load_params
from pipeline.prompts.rewriting import rewrite_prompts
from pipeline.records import Rewritten
from pipeline.seeds import content_id
from pipeline.storage import private_folder, write_rows
from pipeline.taxonomy import load_categories


def main() -> None:
    params, unfinished = load_params(), artifacts.UNFINISHED_REWRITING
    asked = any(variant.rewrite for variant in params.variants.values())
    categories = load_categories(params.taxonomy.folder, params.taxonomy.categories)
    load, run_id = partial(load_engine, **params.llm.loading), content_id(params.llm.provenance)
    rows = rewrite_prompts(
        [row.prompt for row in load_prompts(params.benchmarks)] if asked else [],
        {name: category.definition for name, category in categories.items()},
        KeptReplies(load, unfinished, run_id), params.seed, params.prompts.max_attempts,
    )  # fmt: skip
    private_folder(artifacts.REWRITTEN.parent)
    write_rows(artifacts.REWRITTEN, Rewritten, rows)
    shutil.rmtree(unfinished)


if __name__ == "__main__":
    run_stage(main)
