"""Trains the all-in-one baseline: one LoRA on the pairs of every category together."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.experts import Outputs, Recipe, train_and_save
from pipeline.latents import join_latents, load_latents
from pipeline.params import load_params


def main() -> None:
    params = load_params()
    categories, joint = params.taxonomy.categories, params.joint
    values = params.experts.model_dump()
    values["lora"] |= {"rank": joint.rank, "alpha": None, "row_share": 1.0}
    values["optim"] |= {"max_steps": joint.max_steps}
    train_and_save(
        params.base_model.path, params.base_model.revision,
        join_latents([load_latents(artifacts.latents(c)) for c in categories]), categories,
        Recipe.of(values, params.seed),
        Outputs(
            artifacts.JOINT, artifacts.JOINT_METRICS, artifacts.JOINT_STEPS,
            artifacts.checkpoint("joint"),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
