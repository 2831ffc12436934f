"""Has the LLM rewrite the benchmarks' prompts for the variants that draw what it makes of them.

Without such a variant it is not asked, and the file has no rows. A killed run asks for no reply
again that it had.
"""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.llm.kept import kept_engine
from pipeline.params import load_params
from pipeline.prompts.rewriting import rewrite_prompts
from pipeline.records import Rewritten
from pipeline.storage import private_folder, write_rows
from pipeline.taxonomy import load_categories


def main() -> None:
    params = load_params()
    asked = any(variant.rewrite for variant in params.variants.values())
    categories = load_categories(params.taxonomy.folder, params.taxonomy.categories)
    with kept_engine(
        params.llm.loading, params.llm.provenance, artifacts.UNFINISHED_REWRITING
    ) as engine:
        rows = rewrite_prompts(
            [row.prompt for row in load_prompts(params.benchmarks)] if asked else [],
            {name: category.definition for name, category in categories.items()},
            engine, params.seed, params.prompts.max_attempts,
        )  # fmt: skip
        private_folder(artifacts.REWRITTEN.parent)
        write_rows(artifacts.REWRITTEN, Rewritten, rows)


if __name__ == "__main__":
    run_stage(main)
