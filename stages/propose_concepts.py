"""Gives every category its concepts: its file's own, those of concepts.file, or the LLM's.

A killed run asks for no reply again that it had.
"""

import functools
import shutil

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.llm.engines import load_engine
from pipeline.llm.kept import KeptReplies
from pipeline.params import load_params
from pipeline.prompts.concepts import complete_categories, read_concepts, save_categories
from pipeline.prompts.propose import Proposing
from pipeline.seeds import content_id
from pipeline.storage import write_json
from pipeline.taxonomy import load_categories


def main() -> None:
    params = load_params()
    c, names = params.concepts, params.taxonomy.categories
    engine = KeptReplies(
        functools.partial(load_engine, **params.llm.loading), artifacts.UNFINISHED_CONCEPTS,
        content_id(params.llm.provenance),
    )  # fmt: skip
    categories, metrics = complete_categories(
        load_categories(params.taxonomy.folder, names),
        read_concepts(c.file, names) if c.file else {},
        engine, Proposing(c.count, c.per_reply, c.max_attempts), c.shares, params.seed, c.exclusive,
    )  # fmt: skip
    save_categories(artifacts.CONCEPTS, categories.values())
    write_json(artifacts.CONCEPT_METRICS, metrics)
    shutil.rmtree(artifacts.UNFINISHED_CONCEPTS)


if __name__ == "__main__":
    run_stage(main)
