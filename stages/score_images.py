"""Judges one category's images: raw scores of NudeNet, Q16 and CLIP, no thresholds."""

from pipeline import artifacts
from pipeline.cli import run_stage
from pipeline.params import load_params
from pipeline.records import DrawnImage, PromptPair, Score
from pipeline.scores import load_panel, score_pairs
from pipeline.storage import private_folder, read_rows, write_rows


def main(category: str) -> None:
    j = load_params().judges
    pairs = read_rows(artifacts.prompts(category), PromptPair)
    images = read_rows(artifacts.images(category), DrawnImage)
    panel = load_panel(j.clip, j.clip_pretrained, j.q16, j.batch)
    private_folder(artifacts.scores(category).parent)
    write_rows(artifacts.scores(category), Score, score_pairs(pairs, images, panel))


if __name__ == "__main__":
    run_stage(main)
