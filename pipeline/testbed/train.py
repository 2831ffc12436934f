"""Rebuilds every bundled model and file of the testbed: ``python -m pipeline.testbed.train``.

The parts depend on each other in the order listed; ``--only`` rebuilds some of them. Random
numbers come from ``--seed``, but another CPU or thread count gives slightly other weights.
"""

import argparse
import logging
from pathlib import Path

from pipeline.artifacts import TESTBED

PARTS = ("categories", "vae", "decoder", "lm", "clip", "q16", "checker", "unet", "cards")


def build_part(part: str, root: Path, seed: int) -> None:
    """Build one part of the testbed below ``root``."""
    from pipeline.testbed import cards, categories, checker, generator, judge, lm

    vae = root / "sd" / "vae"
    if part == "categories":
        categories.write_categories(root / "taxonomy")
        categories.write_benchmarks(root / "benchmarks")
        categories.write_references(root / "references")
        categories.write_benign_prompts(root / "benign_prompts.txt")
    elif part == "vae":
        generator.train_vae(root / "sd", scenes=12_000, steps=2000, batch=32, seed=seed)
    elif part == "decoder":
        generator.sharpen_decoder(root / "sd", scenes=12_000, steps=1500, batch=32, seed=seed)
    elif part == "lm":
        lm.train_lm(root / "lm", copy_steps=1200, steps=2800, batch=32, seed=seed)
    elif part == "clip":
        judge.train_clip(root / "clip", vae, scenes=16_000, steps=1200, batch=128, seed=seed)
    elif part == "q16":
        judge.train_q16(root / "q16", root / "clip", vae, scenes=8_000, steps=2000, seed=seed)
    elif part == "checker":
        checker.train_checker(root / "checker" / "checker.safetensors", vae, scenes=12_000,
                              steps=1500, batch=64, seed=seed)  # fmt: skip
    elif part == "unet":
        generator.train_unet(root / "sd", scenes=16_000, steps=6000, horizon=9000, batch=64,
                             seed=seed)  # fmt: skip
    elif part == "cards":
        cards.write_cards(root, seed)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=TESTBED, help="where to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
                        help=f"parts to build, of {', '.join(PARTS)}")  # fmt: skip
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    for part in PARTS:
        if part in args.only:
            build_part(part, args.root, args.seed)


if __name__ == "__main__":
    main()
