"""Reads one benchmark's prompt file, checks every row, and keeps those of the chosen categories."""

from pipeline import artifacts
from pipeline.benchmarks import load_spec, read_benchmark
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.records import BenchmarkPrompt
from pipeline.storage import private_folder, write_json, write_rows


def main(benchmark: str) -> None:
    params = load_params()
    prompts, counts = read_benchmark(
        benchmark, load_spec(artifacts.benchmark_spec(benchmark)), params.benchmarks[benchmark],
        params.taxonomy.categories,
    )  # fmt: skip
    private_folder(artifacts.benchmark_prompts(benchmark).parent)
    write_rows(artifacts.benchmark_prompts(benchmark), BenchmarkPrompt, prompts)
    write_json(artifacts.benchmark_metrics(benchmark), counts)


if __name__ == "__main__":
    run_stage(main)
