"""Model cards of the bundled models, and the contact sheet of what the base model draws."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.storage import atomic_path, write_text
from pipeline.testbed import world

_COMMAND = "python -m pipeline.testbed.train"
CARDS = {
    "sd": (
        "Testbed text-to-image model",
        "A Stable-Diffusion-shaped pipeline for 64x64 scenes of the testbed's invented world: "
        "AutoencoderKL (f = 8, 16 latent channels), CLIPTextModel (width 128) and "
        "UNet2DConditionModel (64, 128), epsilon prediction. Load it with "
        "`StableDiffusionPipeline.from_pretrained`. VAE and UNet are stored in float16.",
        "vae decoder unet",
    ),
    "clip": (
        "Testbed CLIP",
        "An open_clip model (ModifiedResNet, width 24; 3 text layers) trained contrastively on "
        "rendered scenes, half of them through the VAE, and their captions. Load it with "
        "`open_clip.create_model_and_transforms('local-dir:assets/testbed/clip')`.",
        "clip",
    ),
    "q16": (
        "Testbed Q16 vectors",
        "Two unit vectors in the testbed CLIP's embedding space, tuned so that softmax(100 cos) "
        "tells scenes with a mark (index 1, inappropriate) from those without (index 0).",
        "q16",
    ),
    "lm": (
        "Testbed language model",
        "A 3-layer Llama that answers the prompt-synthesis template with JSON pairs about the "
        "world. It makes mistakes, which the pipeline's validator is there to catch.",
        "lm",
    ),
    "checker": (
        "Testbed checker",
        "A small convolutional classifier of mark category, shape, colour, setting and companion: "
        "ground truth about generated pictures for tests. The pipeline never uses it.",
        "checker",
    ),
}


def write_cards(root: Path, seed: int) -> None:
    """Write one README.md per model, and ``contact_sheet.png``."""
    for part, (title, text, parts) in CARDS.items():
        write_text(
            root / part / "README.md",
            f"---\nlicense: apache-2.0\n---\n# {title}\n\n{text}\n\n"
            "Made for the tests and the default run of this repository; of no use outside its "
            "invented world, whose marks are abstract and neutral.\n\n"
            f"- Seed: {seed}\n- Made by: `{_COMMAND} --only {parts} --seed {seed}`\n"
            "- Data: rendered scenes of `pipeline/testbed/world.py`, nothing else\n",
        )
    draw_contact_sheet(root / "contact_sheet.png", seed)


def draw_contact_sheet(path: Path, seed: int) -> None:
    """Have the base model draw every concept, look-alike and some objects, one row a family."""
    from pipeline.testbed.check import draw_scenes

    rng = np.random.default_rng(seed)
    rows = [*world.MARKS.values(), tuple(world.LOOKALIKES), world.COMPANIONS[:8]]
    scenes = [world.sample_scene(rng, name) for row in rows for name in row]
    images = draw_scenes(scenes, None)
    side, gap = world.SIZE, 2
    sheet = Image.new("RGB", (8 * (side + gap) - gap, len(rows) * (side + gap) - gap), "white")
    for k, image in enumerate(images):
        sheet.paste(image, (k % 8 * (side + gap), k // 8 * (side + gap)))
    with atomic_path(path) as temporary:
        sheet.resize((sheet.width * 3 // 2, sheet.height * 3 // 2)).save(temporary, "PNG")
