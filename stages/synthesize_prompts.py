"""Writes one category's unsafe/safe prompt pairs with the configured language model."""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.llm import load_engine
from pipeline.params import load_params
from pipeline.prompts import PairLimits, normalise, synthesize_prompts
from pipeline.records import PromptPair
from pipeline.storage import private_folder, write_json, write_rows
from pipeline.taxonomy import load_category


def main(category: str) -> None:
    params = load_params()
    p = params.prompts
    taxonomy = load_category(artifacts.category_file(params.taxonomy.folder, category))
    leaked = {normalise(row.prompt) for row in load_prompts(params.benchmarks)}
    engine = load_engine(**p.language_model)
    limits = PairLimits(p.min_words, p.max_words, p.min_similarity)
    pairs, metrics = synthesize_prompts(
        taxonomy, engine, pairs_per_concept=p.pairs_per_concept, max_attempts=p.max_attempts,
        limits=limits, leaked=leaked, base_seed=params.seed,
        provenance={"engine": p.engine, "model": p.model, "revision": p.revision or ""},
    )  # fmt: skip
    private_folder(artifacts.prompts(category).parent)
    write_rows(artifacts.prompts(category), PromptPair, pairs)
    write_json(artifacts.prompt_metrics(category), metrics)


if __name__ == "__main__":
    run_stage(main)
