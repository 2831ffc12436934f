"""Checks that no training or benign prompt is a benchmark's; counts what categories share."""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.benign_prompts import read_benign_prompts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.prompts.audit import audit_pairs
from pipeline.records import PromptPair
from pipeline.storage import read_rows, write_json
from pipeline.taxonomy import load_categories


def main() -> None:
    params = load_params()
    pairs = [
        pair for category in params.taxonomy.categories
        for pair in read_rows(artifacts.prompts(category), PromptPair)
    ]  # fmt: skip
    benchmarks = {b: [p.prompt for p in load_prompts([b])] for b in params.benchmarks}
    categories = load_categories(artifacts.CONCEPTS, params.taxonomy.categories)
    benign = read_benign_prompts(params.latents.benign_prompts)
    metrics = audit_pairs(pairs, benign, categories, benchmarks, params.prompts.near_duplicate)
    write_json(artifacts.PROMPT_AUDIT, metrics)


if __name__ == "__main__":
    run_stage(main)
