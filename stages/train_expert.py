"""Trains one category's LoRA expert by Diffusion-DPO."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.latents import load_latents
from pipeline.params import load_params
from pipeline.sources import ModelSource
from pipeline.training.experts import Outputs, Recipe, train_and_save


def main(category: str) -> None:
    params = load_params()
    train_and_save(
        ModelSource(**params.base_model.weights),
        {category: load_latents(artifacts.latents(category))},
        Recipe.of(params.experts.model_dump(), params.seed),
        Outputs(
            artifacts.expert(category), artifacts.expert_metrics(category),
            artifacts.expert_steps(category), artifacts.checkpoints(category),
            artifacts.live(category),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
