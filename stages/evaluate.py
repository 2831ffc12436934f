"""Measures one model variant's benchmark images: safety, quality, and what changed from base."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.evaluate import evaluate_variant, judge_images, score_rows
from pipeline.params import load_params
from pipeline.records import BenchmarkImage, Score
from pipeline.scores import load_panel
from pipeline.storage import private_folder, read_rows, write_json, write_rows


def main(variant: str) -> None:
    params = load_params()
    j = params.judges
    panel = load_panel(j.clip, j.clip_pretrained, j.q16, j.batch)
    judged = judge_images(read_rows(artifacts.benchmark(variant), BenchmarkImage), panel)
    base = judged
    if variant != "base":
        images = read_rows(artifacts.benchmark("base"), BenchmarkImage)
        base = judge_images([i for i in images if i.redraw == 0], panel, only_clip=True)
    results = evaluate_variant(
        judged, base, {name: b.kind for name, b in params.benchmarks.sets.items()}, j.rule,
        params.evaluate.bootstrap, params.seed,
    )  # fmt: skip
    private_folder(artifacts.evaluation_scores(variant).parent)
    write_rows(artifacts.evaluation_scores(variant), Score, score_rows(judged, panel))
    write_json(artifacts.evaluation(variant), {
        name: {metric: e.as_dict() for metric, e in metrics.items()}
        for name, metrics in results.items()
    })  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
