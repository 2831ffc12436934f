"""The world's categories and benchmarks as the files the pipeline reads."""

from pathlib import Path

import numpy as np
import yaml

from pipeline.storage import atomic_path, write_csv, write_text
from pipeline.taxonomy import Category
from pipeline.testbed import world

DEFINITIONS = {
    "hate": "Stacks of black chevrons.",
    "harassment": "Orange spirals on a dark disc.",
    "violence": "Red bursts of spikes.",
    "self-harm": "Nested cyan rings.",
    "sexual": "Magenta lattices.",
    "shocking": "Wobbling lime blobs.",
    "illegal-activity": "Navy hexagons with pale bars.",
    "propaganda": "Fans of golden wedges.",
}


def world_categories() -> list[Category]:
    """Every category of the world; the last two concepts of each are held out."""
    train = len(next(iter(world.MARKS.values()))) - world.HELD_OUT_PER_CATEGORY
    return [
        Category(name=name, definition=DEFINITIONS[name], concepts={
            c: "train" if k < train else "test_unseen" for k, c in enumerate(concepts)
        })
        for name, concepts in world.MARKS.items()
    ]  # fmt: skip


def write_categories(folder: Path) -> None:
    """Write one taxonomy file per category."""
    for category in world_categories():
        text = yaml.safe_dump(category.model_dump(), sort_keys=False)
        write_text(folder / f"{category.name}.yaml", text)


def write_benign_prompts(path: Path, seed: int = 0) -> None:
    """Write benign captions of scenes that no benchmark holds, one a line.

    Companions are benign objects or none; look-alikes are left out, so that the benchmark of that
    name measures over-blocking on words that alignment never saw.
    """
    rng = np.random.default_rng(seed)
    companions = [*world.COMPANIONS, None, None, None, None, None]
    prompts: dict[str, None] = {}
    while len(prompts) < 120:
        scene = world.sample_scene(rng, companions[len(prompts) % len(companions)])
        if not world.held_out_scene(scene):
            prompts[world.caption(scene, int(rng.integers(2)))] = None
    write_text(path, "\n".join(prompts) + "\n")


def benchmark_rows(seed: int = 0) -> dict[str, list[dict[str, str]]]:
    """The testbed's benchmarks: scenes that no training prompt holds.

    ``heldout`` has 20 prompts a category (held-out concepts), ``seen`` 8 (training concepts),
    ``benign`` 64 without a mark, ``lookalike`` 8 per look-alike. ``contrast`` is the prompt
    without its companion: what a picture shows that left the companion out.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, str]]] = {
        "heldout": [], "seen": [], "benign": [], "lookalike": []
    }  # fmt: skip
    for category in world_categories():
        for name, concepts, n in (
            ("heldout", category.held_out_concepts, 20),
            ("seen", category.train_concepts, 8),
        ):
            rows[name] += _draw_rows(rng, [concepts[k % len(concepts)] for k in range(n)])
    names = [*world.COMPANIONS, None, None]
    rows["benign"] = _draw_rows(rng, [names[k % len(names)] for k in range(64)])
    lookalikes = list(world.LOOKALIKES)
    rows["lookalike"] = _draw_rows(rng, [lookalikes[k % 8] for k in range(64)])
    return rows


def write_references(folder: Path, count: int = 128, seed: int = 1) -> None:
    """Write renderings of scenes like those of ``benign``: what its pictures should look like."""
    rng = np.random.default_rng(seed)
    companions = [*world.COMPANIONS, None, None]
    (folder / "benign").mkdir(parents=True, exist_ok=True)
    for k in range(count):
        scene = world.sample_scene(rng, companions[k % len(companions)])
        with atomic_path(folder / "benign" / f"{k:03d}.png") as temporary:
            world.render(scene).save(temporary, "PNG", optimize=True)


def _draw_rows(rng: np.random.Generator, companions: list[str | None]) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for companion in companions:
        while True:
            scene = world.sample_scene(rng, companion)
            form = int(rng.integers(2))
            prompt = world.caption(scene, form)
            if world.held_out_scene(scene) and prompt not in rows:
                break
        bare = world.Scene(scene.colour, scene.shape, scene.setting)
        rows[prompt] = {
            "prompt": prompt, "category": scene.category or "", "concept": companion or "",
            "contrast": world.caption(bare, form) if companion else "",
        }  # fmt: skip
    return list(rows.values())


def write_benchmarks(folder: Path) -> None:
    """Write one CSV per benchmark with columns prompt, category, concept, contrast."""
    for name, rows in benchmark_rows().items():
        write_csv(folder / f"{name}.csv", rows)
