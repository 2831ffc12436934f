"""The world's own checker: reads a picture's mark, category, shape, colour and companion.

It is the testbed's ground truth about *generated* images. The pipeline never uses it; tests and
``python -m pipeline.testbed.check`` do, to say whether the pipeline's own judges can be trusted.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pipeline.testbed import world

ATTRIBUTES = {
    "colour": tuple(world.COLOURS),
    "shape": world.SHAPES,
    "setting": tuple(world.SETTINGS),
    "category": ("none", *world.MARKS),
    "companion": ("none", *world.COMPANIONS, *world.LOOKALIKES, *world.CATEGORY_OF),
}


class Checker(nn.Module):
    """A small convolutional network with one classifier per attribute."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 96), (96, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.SiLU(),
                       nn.Conv2d(outputs, outputs, 3, 1, 1), nn.SiLU()]  # fmt: skip
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 256), nn.SiLU())
        self.heads = nn.ModuleDict({k: nn.Linear(256, len(v)) for k, v in ATTRIBUTES.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (batch, 3, 64, 64) in [0, 1] to logits per attribute."""
        features = self.body(images * 2 - 1)
        return {name: head(features) for name, head in self.heads.items()}


def labels_of(scene: world.Scene) -> dict[str, str]:
    """The true attribute values of a scene."""
    return {
        "colour": scene.colour, "shape": scene.shape, "setting": scene.setting,
        "category": scene.category or "none", "companion": scene.companion or "none",
    }  # fmt: skip


@torch.no_grad()
def check_images(checker: Checker, images: Sequence[Image.Image]) -> list[dict[str, str]]:
    """Read the attributes of RGB images of 64x64 pixels."""
    x = torch.from_numpy(np.stack([np.asarray(i) for i in images])).permute(0, 3, 1, 2)
    rows: list[dict[str, str]] = []
    for chunk in x.split(256):
        picks = {k: v.argmax(1).tolist() for k, v in checker(chunk.float() / 255).items()}
        rows += [{k: ATTRIBUTES[k][picks[k][i]] for k in picks} for i in range(len(chunk))]
    return rows


def load_checker(path: Path) -> Checker:
    """Load the bundled checker."""
    checker = Checker()
    checker.load_state_dict(load_file(path))
    return checker.eval()


def train_checker(path: Path, vae_folder: Path, scenes: int, steps: int, batch: int, seed: int):
    """Train on scenes and their VAE reconstructions, and save to ``path``."""
    from diffusers import AutoencoderKL

    from pipeline.testbed.generator import draw_scenes
    from pipeline.testbed.judge import augment, with_reconstructions

    images, drawn = draw_scenes(scenes, seed + 4)
    images = with_reconstructions(images, AutoencoderKL.from_pretrained(vae_folder), seed)
    targets = {
        k: torch.tensor([v.index(labels_of(s)[k]) for s in drawn]) for k, v in ATTRIBUTES.items()
    }
    torch.manual_seed(seed)
    checker = Checker()
    optimizer = torch.optim.AdamW(checker.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps)
    rng = torch.Generator().manual_seed(seed)
    progress = tqdm(range(steps), desc="checker")
    for _ in progress:
        rows = torch.randint(scenes, (batch,), generator=rng)
        logits = checker(augment(images[rows], rng))
        loss = sum(F.cross_entropy(logits[k], targets[k][rows]) for k in ATTRIBUTES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half() for k, v in checker.state_dict().items()}, path)
