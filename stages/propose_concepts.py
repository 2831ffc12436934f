"""Gives every category its concepts: its file's own, those of concepts.file, or the LLM's.

A killed run asks for no reply again that it had.
"""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.llm.kept import kept_engine
from pipeline.params import load_params
from pipeline.prompts.concepts import complete_categories, read_concepts, save_categories
from pipeline.prompts.propose import Proposing
from pipeline.storage import write_json
from pipeline.taxonomy import load_categories


def main() -> None:
    params = load_params()
    c, names = params.concepts, params.taxonomy.categories
    with kept_engine(
        params.llm.loading, params.llm.provenance, artifacts.UNFINISHED_CONCEPTS
    ) as engine:
        categories, metrics = complete_categories(
            load_categories(params.taxonomy.folder, names),
            read_concepts(c.file, names) if c.file else {},
            engine, Proposing(c.count, c.per_reply, c.max_attempts), c.shares, params.seed,
            c.exclusive,
        )  # fmt: skip
        save_categories(artifacts.CONCEPTS, categories.values())
        write_json(artifacts.CONCEPT_METRICS, metrics)


if __name__ == "__main__":
    run_stage(main)
