"""Measures what layers see under unsafe and benign prompts, and which expert reacts most."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.diffusion import load_noise_schedule, load_unet
from pipeline.latents import load_latents
from pipeline.merging.calibrate import calibrate_merge
from pipeline.merging.preparation import Preparation, load_experts
from pipeline.nullspace.inputs import Calibration
from pipeline.params import load_params
from pipeline.sources import ModelSource


def main() -> None:
    params = load_params()
    m, categories = params.merge, params.taxonomy.categories
    source = ModelSource(**params.base_model.weights)
    experts, provenances = load_experts({c: artifacts.expert(c) for c in categories})
    calibration = Calibration(
        load_unet(source),
        {c: load_latents(artifacts.latents(c)) for c in categories},
        load_noise_schedule(source), m.calibration_prompts, m.calibration_timesteps, params.seed,
        "merge", "merge.calibration_prompts", m.calibration_batch,
    )  # fmt: skip
    calibrate_merge(artifacts.CALIBRATION, experts, provenances, calibration,
                    Preparation(**m.preparation), source.identity)  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
