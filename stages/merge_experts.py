"""Merges the experts of all categories into one LoRA per method."""

from pipeline import artifacts
from pipeline.calibration import Calibration, count_winners
from pipeline.cli import run_stage
from pipeline.diffusion import ModelSource, load_noise_schedule, load_unet
from pipeline.latents import load_latents
from pipeline.lora import load_lora
from pipeline.merge import merge_and_save, prepare_experts
from pipeline.params import load_params


def main() -> None:
    params = load_params()
    source = ModelSource(**params.base_model.weights)
    m, categories = params.merge, params.taxonomy.categories
    loaded = {c: load_lora(artifacts.expert(c)) for c in categories}
    calibration = Calibration(
        load_unet(source),
        {c: load_latents(artifacts.latents(c)) for c in categories},
        load_noise_schedule(source), m.calibration_prompts, m.calibration_timesteps, params.seed,
        "merge", "merge.calibration_prompts", m.calibration_batch,
    )  # fmt: skip
    experts, scales = prepare_experts(
        {c: lora for c, (lora, _) in loaded.items()}, calibration, m.null_damping, m.equalise
    )
    merge_and_save(
        experts, {c: provenance for c, (_, provenance) in loaded.items()}, m.methods,
        count_winners(experts, calibration), artifacts.MERGED, artifacts.MERGE_METRICS,
        m.model_dump(exclude={"methods"}), scales,
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
