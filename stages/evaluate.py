"""Metrics of one model variant from its raw scores, each with its interval."""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.evaluate.judged import load_complete, read_references
from pipeline.evaluate.measure import evaluate_variant
from pipeline.evaluate.results import as_json
from pipeline.params import load_params
from pipeline.storage import write_json


def main(variant: str) -> None:
    params = load_params()
    prompts = load_prompts(params.benchmarks)
    base = load_complete(artifacts.benchmark_scores("base"), "base", prompts)
    scores = artifacts.benchmark_scores(variant)
    results = evaluate_variant(
        base if variant == "base" else load_complete(scores, variant, prompts),
        base, list(params.benchmarks), params.judges.rule, params.evaluate.bootstrap,
        params.seed, read_references(artifacts.REFERENCES, base.rows[0].judges),
    )  # fmt: skip
    write_json(artifacts.evaluation(variant), as_json(results))


if __name__ == "__main__":
    run_stage(main)
