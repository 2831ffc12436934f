"""What the judges see in benchmarks' reference images, for FID, KID and CMMD to them."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.scoring.benchmarks import embed_references, judges_of, save_references
from pipeline.scoring.panel import load_panel


def main() -> None:
    params = load_params()
    panel = load_panel(**params.judges.loading)
    found = embed_references(params.references, params.benchmarks, panel)
    save_references(artifacts.REFERENCES, found, judges_of(panel))


if __name__ == "__main__":
    run_stage(main)
