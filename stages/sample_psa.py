"""What evaluated users are shown: by the adapter, and by two baselines that use prompts."""

from pipeline import artifacts
from pipeline.benchmarks import load_prompts
from pipeline.cli import run_stage
from pipeline.drawing.pipelines import load_pipeline
from pipeline.drawing.sampler import Sampler
from pipeline.params import load_params
from pipeline.personal.shown import Terms, draw_methods, shown_prompts
from pipeline.records import User
from pipeline.sources import ModelSource
from pipeline.storage import read_rows
from pipeline.taxonomy import load_categories


def main() -> None:
    params = load_params()
    source, i, e = ModelSource(**params.base_model.weights), params.images, params.evaluate_psa
    categories = load_categories(artifacts.CONCEPTS, params.taxonomy.categories)
    concepts = {name: category.train_concepts for name, category in categories.items()}
    prompts = shown_prompts(load_prompts(e.benchmarks), **e.shown, seed=params.seed)
    draw_methods(
        artifacts.PSA_IMAGES, load_pipeline(source, precision=i.precision), artifacts.PSA,
        source.identity, read_rows(artifacts.USERS, User), prompts, Terms(concepts, e.terms),
        e.suffix, Sampler(**i.sampler),
        base_seed=params.seed, shard_rows=i.shard_rows, batch=i.batch,
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
