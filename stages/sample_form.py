"""What evaluated users are shown by the user adapter in another form, with its scores."""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.drawing.pipelines import load_pipeline
from pipeline.drawing.sampler import Sampler
from pipeline.params import load_params
from pipeline.personal.scored import judge_methods
from pipeline.personal.shown import boundaries, draw_by_adapter, shown_prompts
from pipeline.records import User
from pipeline.scoring.panel import load_panel
from pipeline.sources import ModelSource
from pipeline.storage import read_rows


def main(name: str) -> None:
    params, folder = load_params(), artifacts.shown_by_form(name)
    source, i, j = ModelSource(**params.base_model.weights), params.images, params.judges
    e = params.evaluate_psa
    draw_by_adapter(
        folder / "images", name, load_pipeline(source, precision=i.precision),
        artifacts.form(name) / artifacts.PSA.name, source.identity,
        boundaries(read_rows(artifacts.USERS, User)),
        shown_prompts(load_prompts(e.benchmarks), **e.shown, seed=params.seed),
        Sampler(**i.sampler),
        base_seed=params.seed, shard_rows=i.shard_rows, batch=i.batch,
    )  # fmt: skip
    panel = load_panel(**j.loading)
    judge_methods(folder / "images", folder / "scores", panel)


if __name__ == "__main__":
    run_stage(main)
