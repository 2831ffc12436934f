"""Trains the all-in-one baseline: one LoRA on the pairs of every category together."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.experts import DpoSettings, LoraSettings, Outputs, train_and_save
from pipeline.latents import join_latents, load_latents
from pipeline.params import load_params
from pipeline.train import TrainSettings


def main() -> None:
    params = load_params()
    e, categories = params.experts, params.taxonomy.categories
    latents = join_latents([load_latents(artifacts.latents(c)) for c in categories])
    lora = e.lora.model_dump() | {"rank": params.joint.rank, "row_share": 1.0}
    optim = e.optim.model_dump() | {"max_steps": params.joint.max_steps}
    train_and_save(
        params.base_model.path, params.base_model.revision, latents, categories,
        lora=LoraSettings(**lora), dpo=DpoSettings(**e.dpo.model_dump()),
        settings=TrainSettings(seed=params.seed, **optim),
        out=Outputs(
            artifacts.JOINT, artifacts.JOINT_METRICS, artifacts.JOINT_STEPS,
            artifacts.checkpoint("joint"),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
