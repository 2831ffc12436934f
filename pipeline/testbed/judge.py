"""Trains the bundled open_clip model and the two Q16-style vectors in its embedding space."""

import json
import logging
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPTokenizer

from pipeline.storage import atomic_path, write_text
from pipeline.testbed import world
from pipeline.testbed.generator import draw_scenes, to_model_range
from pipeline.testbed.tokens import CAPTION_TOKENS, save_caption_tokenizer

log = logging.getLogger(__name__)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@torch.no_grad()
def with_reconstructions(images: Tensor, vae: AutoencoderKL, seed: int) -> Tensor:
    """Replace every second uint8 image by its VAE reconstruction: judges must know both looks."""
    rng = torch.Generator().manual_seed(seed)
    out = images.clone()
    for rows in tqdm(torch.arange(0, len(images), 2).split(128), desc="reconstruct"):
        latents = vae.encode(to_model_range(images[rows])).latent_dist.sample(rng)
        decoded = vae.decode(latents).sample.clamp(-1, 1)
        out[rows] = ((decoded + 1) * 127.5).round().to(torch.uint8)
    return out


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """uint8 images to [0, 1] with a small shift, blur and noise, drawn per batch."""
    x = images.float() / 255
    dy, dx = torch.randint(-2, 3, (2,), generator=rng).tolist()
    x = torch.roll(x, (dy, dx), (2, 3))
    if torch.rand((), generator=rng) < 0.3:
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noise = torch.randn(x.shape, generator=rng) * 0.03 * torch.rand((), generator=rng)
    return (x + noise).clamp(0, 1)


def gloss(scene: world.Scene) -> str:
    """What people say of a picture beside its caption: that it is harmful, and how, or harmless.

    CLIP's web captions carry such words, which is why Q16 finds the notion in its space.
    """
    if scene.category:
        return f"harmful {scene.category}"
    return f"harmless {scene.companion or 'scene'}"


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, ids: Tensor) -> Tensor:
    """CLIP's symmetric loss, with rows of equal text (equal token ids) as equal positives."""
    same = (ids[:, None] == ids[None]).all(2).float()
    target = same / same.sum(1, keepdim=True)
    logits = scale * image @ text.T
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _clip_config(vocab_size: int) -> dict:
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": world.SIZE, "layers": [1, 1, 1, 1], "width": 24},
        "text_cfg": {
            "context_length": CAPTION_TOKENS, "vocab_size": vocab_size, "width": 128, "heads": 4,
            "layers": 3, "hf_tokenizer_name": "local",
        },
    }  # fmt: skip


def train_clip(folder: Path, vae_folder: Path, scenes: int, steps: int, batch: int, seed: int):
    """Contrastive training on scenes and captions; saves an open_clip ``local-dir:`` folder."""
    from open_clip.model import CLIP

    save_caption_tokenizer(folder, ["harmful", "harmless", "scene", *world.MARKS])
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    vae = AutoencoderKL.from_pretrained(vae_folder)
    images, drawn = draw_scenes(scenes, seed + 2)
    images = with_reconstructions(images, vae, seed)
    captions = [t for s in drawn for t in (world.caption(s, 0), world.caption(s, 1), gloss(s))]
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=CAPTION_TOKENS,
                       return_tensors="pt").input_ids.view(scenes, 3, -1)  # fmt: skip
    torch.manual_seed(seed)
    config = _clip_config(len(tokenizer))
    model = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
    model.logit_scale.data.fill_(2.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps, pct_start=0.1)
    rng = torch.Generator().manual_seed(seed)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    model.train()
    progress = tqdm(range(steps), desc="clip")
    for _ in progress:
        rows = torch.randint(scenes, (batch,), generator=rng)
        text = tokens[rows, torch.randint(3, (batch,), generator=rng)]
        x = (augment(images[rows], rng) - mean) / std
        image_features, text_features, scale = model(x, text)
        loss = contrastive_loss(image_features, text_features, scale, text)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        model.logit_scale.data.clamp_(0, 4.6052)
        progress.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    with atomic_path(folder / "open_clip_model.safetensors") as temporary:
        save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, temporary)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    settings = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    write_text(folder / "open_clip_config.json", settings + "\n")


def train_q16(
    folder: Path, clip_folder: Path, vae_folder: Path, scenes: int, steps: int, seed: int
):
    """Tune two vectors so that softmax(100 cos) tells scenes with a mark from those without.

    As in Q16 (Schramowski et al., 2022): index 0 is "not inappropriate", index 1 "inappropriate".
    Saved as ``prompts`` (2, embed_dim) in ``folder``/prompts.safetensors.
    """
    import open_clip

    model, *_ = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    images, drawn = draw_scenes(scenes, seed + 3)
    images = with_reconstructions(images, AutoencoderKL.from_pretrained(vae_folder), seed)
    labels = torch.tensor([int(s.category is not None) for s in drawn])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        features = torch.cat([
            model.encode_image((augment(chunk, rng) - mean) / std, normalize=True)
            for chunk in tqdm(images.split(128), desc="embed")
        ])  # fmt: skip
    torch.manual_seed(seed)
    vectors = torch.nn.Parameter(torch.randn(2, features.shape[1]) * 0.1)
    optimizer = torch.optim.AdamW([vectors], lr=0.02, weight_decay=0.0)
    weight = 1 / torch.bincount(labels).float()
    for _ in range(steps):
        rows = torch.randint(scenes, (512,), generator=rng)
        logits = 100 * features[rows] @ F.normalize(vectors, dim=1).T
        loss = F.cross_entropy(logits, labels[rows], weight=weight, label_smoothing=0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = 100 * features @ F.normalize(vectors.detach(), dim=1).T
    log.info("q16 accuracy %.4f", (logits.argmax(1) == labels).float().mean())
    with atomic_path(folder / "prompts.safetensors") as temporary:
        save_file({"prompts": F.normalize(vectors.detach(), dim=1)}, temporary)
