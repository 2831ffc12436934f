"""Encodes one category's pairs once: VAE posteriors and text embeddings for training."""

from pipeline import artifacts
from pipeline.benign_prompts import read_benign_prompts
from pipeline.cli import run_stage
from pipeline.encode import ViewSettings, encode_pairs
from pipeline.latents import save_latents
from pipeline.params import load_params
from pipeline.records import PreferencePair
from pipeline.sources import ModelSource
from pipeline.storage import StoredRows


def main(category: str) -> None:
    params = load_params()
    asked = params.latents
    views = ViewSettings(asked.views, asked.flip, asked.crop, params.seed)
    latents = encode_pairs(
        StoredRows(artifacts.pairs(category), PreferencePair),
        ModelSource(**params.base_model.weights), params.images.batch,
        read_benign_prompts(asked.benign_prompts), views,
    )  # fmt: skip
    save_latents(artifacts.latents(category), latents)


if __name__ == "__main__":
    run_stage(main)
