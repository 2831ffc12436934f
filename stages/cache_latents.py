"""Encodes one category's pairs once: VAE posteriors and text embeddings for training."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.diffusion import model_revision
from pipeline.latents import encode_pairs, read_benign_prompts, save_latents
from pipeline.params import load_params
from pipeline.records import PreferencePair
from pipeline.storage import read_rows


def main(category: str) -> None:
    params = load_params()
    model = params.base_model
    latents = encode_pairs(
        read_rows(artifacts.pairs(category), PreferencePair), model.path, model.revision,
        model_revision(model.path, model.revision), params.images.batch,
        read_benign_prompts(params.latents.benign_prompts),
    )  # fmt: skip
    save_latents(artifacts.latents(category), latents)


if __name__ == "__main__":
    run_stage(main)
