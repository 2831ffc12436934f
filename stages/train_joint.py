"""Trains the all-in-one baseline: one LoRA on the pairs of every category together."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.latents import load_latents
from pipeline.params import load_params
from pipeline.sources import ModelSource
from pipeline.training.experts import Outputs, Recipe, train_and_save


def main() -> None:
    params = load_params()
    joint, values = params.joint, params.experts.model_dump()
    alpha, rank = values["lora"]["alpha"], values["lora"]["rank"]
    values["lora"] |= {
        "rank": joint.rank, "alpha": alpha and alpha * joint.rank / rank, "row_share": 1.0
    }  # fmt: skip
    values["dpo"] |= {"fixed_draws": joint.fixed_draws}
    values["optim"] |= {"max_steps": joint.max_steps}
    train_and_save(
        ModelSource(**params.base_model.weights),
        {c: load_latents(artifacts.latents(c)) for c in params.taxonomy.categories},
        Recipe.of(values, params.seed),
        Outputs(
            artifacts.JOINT, artifacts.JOINT_METRICS, artifacts.JOINT_STEPS,
            artifacts.checkpoints("joint"), artifacts.live("joint"),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(main)
