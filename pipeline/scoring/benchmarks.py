"""Judges look at every benchmark image once; metrics are made of the raw scores they leave.

Scores lie in one shard for each shard of images; a shard whose images and judges are those that
were scored is not scored again, so a killed run goes on where it stopped.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.judges.raw import flat_scores, hash_texts
from pipeline.judges.rules import CLIP, INCEPTION
from pipeline.pixels import open_image
from pipeline.progress import progress_bar
from pipeline.records import BenchmarkImage, JudgedImage
from pipeline.scoring.panel import SCORING_VERSION, Panel
from pipeline.storage import (
    atomic_path,
    holds_columns,
    private_folder,
    read_rows,
    remove_except,
    write_rows,
)
from pipeline.workers import ALONE, Worker

FEWEST_REFERENCES = 4  # KID's two halves of two
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def judges_of(panel: Panel) -> str:
    """What identifies everything that scores depend on, as JSON."""
    return json.dumps(
        panel.versions | {"scoring": f"{SCORING_VERSION}@{panel.settings}"}, sort_keys=True
    )


def judge_images(images: Sequence[BenchmarkImage], panel: Panel) -> list[JudgedImage]:
    """Score images with every judge, in their order.

    Beside what the panel scores: ``clip/text`` and, where there is a contrast, ``clip/contrast``,
    100 x cosine with the prompt and with its contrast.
    """
    seen = panel.look_at_all([i.image for i in images])
    texts = list(dict.fromkeys(t for i in images for t in (i.prompt, i.contrast) if t))
    embedded = dict(zip(texts, panel.clip.embed_texts(texts), strict=True))
    features = [b""] * len(images)
    if seen.features is not None:
        features = [vector.tobytes() for vector in seen.features.numpy()]
    judges = judges_of(panel)
    rows = []
    found = zip(images, seen.embeddings, seen.scores, features, strict=True)
    for image, vector, row, feature in found:
        row[CLIP] = {"text": 100 * float(vector @ embedded[image.prompt])}
        if image.contrast:
            row[CLIP]["contrast"] = 100 * float(vector @ embedded[image.contrast])
        rows.append(JudgedImage(
            **_labels(image), scores=flat_scores(row), judges=judges,
            clip_embedding=vector.numpy().tobytes(), inception_embedding=feature,
        ))  # fmt: skip
    return rows


def _labels(image: BenchmarkImage) -> dict[str, object]:
    """What an image's scores are stored under; hashes in place of texts."""
    shared = {f.name for f in fields(JudgedImage)} & {f.name for f in fields(BenchmarkImage)}
    text_id = hash_texts(image.prompt, image.contrast)
    return {name: getattr(image, name) for name in shared} | {"text_id": text_id}


def judge_folder(source: Path, scores: Path, panel: Panel, worker: Worker = ALONE) -> int:
    """Score a folder of image shards into ``scores``; returns how many images were looked at.

    Of several workers each scores its shards, and a run of one then finds all of them. Raises
    InputError when there are no images.
    """
    files = sorted(Path(source).glob("*.parquet"))
    if not files:
        raise InputError(f"{source} holds no images; run `dvc repro sample_benchmark`")
    private_folder(scores)
    if worker.alone:
        remove_except(scores, [scores / file.name for file in files])
    judges, looked_at = judges_of(panel), 0
    for file in worker.share(files):
        images, path = read_rows(file, BenchmarkImage), scores / file.name
        known = path.exists() and holds_columns(path, JudgedImage)
        stored = read_rows(path, JudgedImage) if known else []
        if [(r.image_id, r.text_id, r.judges) for r in stored] == [
            (i.image_id, _labels(i)["text_id"], judges) for i in images
        ]:
            rows = [replace(r, **_labels(i)) for r, i in zip(stored, images, strict=True)]
        else:  # the whole shard: float sums differ in the last bit with the batch
            rows = judge_images(images, panel)
            looked_at += len(rows)
        if rows != stored:
            write_rows(path, JudgedImage, rows)
    return looked_at


def embed_references(
    folder: Path, benchmarks: Iterable[str], panel: Panel
) -> dict[str, dict[str, np.ndarray]]:
    """What CLIP and, where it is set, Inception see in ``<folder>/<benchmark>/``'s images.

    Returns benchmark -> judge -> (images, dim), for the benchmarks that have such a folder. Raises
    InputError for a folder without images, an image that cannot be read, and another folder.
    """
    benchmarks = list(benchmarks)
    given = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    if unknown := set(given) - set(benchmarks):
        raise InputError(f"{folder} has a folder {sorted(unknown)[0]!r}, no benchmark of "
                         f"params.yaml ({', '.join(benchmarks)})")  # fmt: skip
    return {name: _embed_folder(Path(folder) / name, panel) for name in given}


def _embed_folder(folder: Path, panel: Panel) -> dict[str, np.ndarray]:
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    if len(files) < FEWEST_REFERENCES:
        raise InputError(f"{folder} holds {len(files)} images; KID needs {FEWEST_REFERENCES}")
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    with progress_bar(len(files), f"embed {folder.name}", "image") as progress:
        for start in range(0, len(files), panel.clip.batch):
            some = [open_image(file) for file in files[start : start + panel.clip.batch]]
            parts[CLIP].append(panel.clip.embed_images(some).numpy())
            if panel.inception:
                parts[INCEPTION].append(panel.inception.embed_images(some).numpy())
            progress.update(len(some))
    return {judge: np.concatenate(arrays) for judge, arrays in parts.items()}


def save_references(
    folder: Path, found: Mapping[str, Mapping[str, np.ndarray]], judges: str
) -> None:
    """Write each benchmark's reference embeddings; nothing else stays in the folder.

    ``judges`` are ``judges_of`` the panel that made them.
    """
    from safetensors.numpy import save_file

    files = {name: private_folder(folder) / f"{name}.safetensors" for name in found}
    for name, arrays in found.items():
        with atomic_path(files[name]) as temporary:
            save_file(dict(arrays), temporary, metadata={"judges": judges})
    remove_except(private_folder(folder), files.values())
