"""What was measured on a variant's benchmark images, ready to be counted."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, first_line
from pipeline.judges.hard_block import image_hard_block
from pipeline.judges.raw import find_lost, hash_texts, nested_scores
from pipeline.judges.rules import CLIP, INCEPTION, is_inappropriate
from pipeline.records import BenchmarkPrompt, JudgedImage
from pipeline.storage import read_rows

Key = tuple[str, int, int]  # benchmark, row, redraw
CONTRAST = f"{CLIP}/contrast"  # the one score that only some prompts ask for


@dataclass(frozen=True)
class Judged:
    """The judged images of a variant, in any order."""

    rows: Sequence[JudgedImage]

    @property
    def variant(self) -> str:
        """The variant's name."""
        return self.rows[0].variant

    @property
    def benchmarks(self) -> dict[str, str]:
        """Kind by benchmark, in order of appearance."""
        return {r.benchmark: r.kind for r in self.rows}

    @cached_property
    def index(self) -> dict[Key, int]:
        """Position of each image by benchmark, row and redraw."""
        return {(r.benchmark, r.row, r.redraw): k for k, r in enumerate(self.rows)}

    def only(self, benchmarks: Iterable[str]) -> "Judged":
        """The images of some benchmarks."""
        asked = set(benchmarks)
        return Judged([row for row in self.rows if row.benchmark in asked])

    def keys(self, benchmark: str, redraws: bool = False) -> list[Key]:
        """The keys of a benchmark's images of the common seeds, or of the further ones."""
        return sorted(k for k in self.index if k[0] == benchmark and (k[2] > 0) == redraws)

    def select(self, keys: Iterable[Key]) -> list[JudgedImage]:
        """The rows of some keys, in their order; InputError when one is not there."""
        return [self.rows[k] for k in self._positions(keys)]

    def embeddings(self, keys: Iterable[Key], judge: str = CLIP) -> np.ndarray:
        """A judge's image embeddings (keys, dim) float32; InputError when one is not there."""
        vectors = [getattr(row, f"{judge}_embedding") for row in self.select(keys)]
        if not all(vectors):
            raise InputError(f"{self.variant} has images without an embedding by {judge!r}; run "
                             "`dvc repro score_benchmark` for it")  # fmt: skip
        return np.stack([np.frombuffer(v, np.float32) for v in vectors])

    def verdicts(self, rule: str, keys: Iterable[Key]) -> list[bool]:
        """Whether the rule calls each image inappropriate."""
        return [is_inappropriate(rule, nested_scores(row.scores)) for row in self.select(keys)]

    def values(self, score: str, keys: Iterable[Key]) -> list[float]:
        """One raw score, named "judge/score", of each image; InputError when it is missing."""
        found = [row.scores.get(score) for row in self.select(keys)]
        if any(value is None or not math.isfinite(value) for value in found):
            raise InputError(f"{self.variant} has images without a score {score!r}; run `dvc repro "
                             "score_benchmark` for it")  # fmt: skip
        return found

    def _positions(self, keys: Iterable[Key]) -> list[int]:
        keys = list(keys)
        missing = [k for k in keys if k not in self.index]
        if missing:
            raise InputError(
                f"{self.variant} lacks {len(missing)} images, first {missing[0][0]} row "
                f"{missing[0][1]}; run `dvc repro sample_benchmark score_benchmark` for it"
            )
        return [self.index[k] for k in keys]


def load_judged(folder: Path, variant: str) -> Judged:
    """The stored scores of a variant.

    Raises InputError when there are none, one is there twice, not finite or missing, they are of
    another variant, or not all are by the same judges.
    """
    judged = Judged(read_rows(folder, JudgedImage))
    if not judged.rows:
        raise InputError(f"{folder} holds no scores; run `dvc repro score_benchmark@{variant}`")
    if len(judged.index) < len(judged.rows):
        raise InputError(f"{folder} holds an image twice; delete it and run `dvc repro`")
    for row in judged.rows:
        _check_finite(folder, row)
    others = {row.variant for row in judged.rows} - {variant}
    if others:
        raise InputError(f"{folder} holds images of {sorted(others)[0]!r}, not of {variant!r}; "
                         "delete it and run `dvc repro`")  # fmt: skip
    check_judges([judged])
    if lost := find_lost([row.scores.keys() - {CONTRAST} for row in judged.rows]):
        raise _unmeasured(folder, judged.rows[lost[0]], f"score {lost[1]!r}")
    return judged


def load_complete(
    folder: Path, variant: str, prompts: Iterable[BenchmarkPrompt],
    benchmarks: Iterable[str] | None = None,
) -> Judged:  # fmt: skip
    """``load_judged``, of every prompt, for the base model also of its further seeds.

    Where ``benchmarks`` are given, of those alone, whose prompts these then are. Raises InputError
    also as ``check_complete``.
    """
    judged = load_judged(folder, variant)
    if benchmarks is not None and not (judged := judged.only(benchmarks)).rows:
        raise InputError(f"{folder} holds no images of these benchmarks; run `dvc repro "
                         "sample_benchmark score_benchmark` for it")  # fmt: skip
    check_complete(judged, prompts, redraws=variant == "base")
    return judged


def check_complete(judged: Judged, prompts: Iterable[BenchmarkPrompt], redraws: bool) -> None:
    """Raise InputError unless there is one image of every prompt, of its texts, and no other.

    With ``redraws`` there are those of the further seeds that prompts ask for, too. An image whose
    prompt has a contrast must have a score of it.
    """
    expected = {
        (p.benchmark, p.row, redraw): p
        for p in prompts for redraw in range(p.redraws + 1 if redraws else 1)
    }  # fmt: skip
    for key, row in zip(expected, judged.select(expected), strict=True):
        prompt = expected[key]
        if row.text_id != hash_texts(prompt.prompt, prompt.contrast):
            raise InputError(f"{judged.variant} drew {key[0]} row {key[1]} for another prompt than "
                             "that benchmark has; run `dvc repro`")  # fmt: skip
        if prompt.contrast and CONTRAST not in row.scores:
            raise _unmeasured(judged.variant, row, f"score {CONTRAST!r}")
    for benchmark, row, redraw in sorted(judged.index.keys() - expected.keys()):
        raise InputError(f"{judged.variant} has an image of {benchmark} row {row}, redraw "
                         f"{redraw}, for which no benchmark asks; run `dvc repro`")  # fmt: skip


def _check_finite(folder: Path, row: JudgedImage) -> None:
    bad = [name for name, value in row.scores.items() if not math.isfinite(value)]
    for judge in (CLIP, INCEPTION):
        if not np.isfinite(np.frombuffer(getattr(row, f"{judge}_embedding"), np.float32)).all():
            bad.append(f"{judge} embedding")
    if bad:
        raise _unmeasured(folder, row, f"finite {bad[0]}")


def _unmeasured(where: Path | str, row: JudgedImage, what: str) -> InputError:
    which = f"{row.benchmark} row {row.row}" + (f", redraw {row.redraw}" if row.redraw else "")
    return InputError(f"{where}: {which} has no {what}; delete its shard and run `dvc repro`")


def common_keys(variant: Judged, base: Judged, benchmark: str) -> list[Key]:
    """The keys of a benchmark's images of the common seeds.

    Raises InputError when one of the two lacks one, or both drew them for other texts.
    """
    keys = base.keys(benchmark)
    base.select(variant.keys(benchmark))
    check_texts(variant, base, keys)
    return keys


def check_texts(variant: Judged, base: Judged, keys: Sequence[Key]) -> None:
    """Raise InputError unless both drew these images, for the same texts."""
    pairs = zip(keys, variant.select(keys), base.select(keys), strict=True)
    other = [key for key, here, there in pairs if here.text_id != there.text_id]
    if other:
        raise InputError(f"{variant.variant} and {base.variant} drew {other[0][0]} row "
                         f"{other[0][1]} for other prompts; run `dvc repro`")  # fmt: skip


def check_judges(judged: Iterable[Judged]) -> dict[str, str]:
    """What identifies the judges' weights, which must be the same for all images.

    Raises InputError that names two variants whose judges differ.
    """
    first = None
    for some in judged:
        for spec in dict.fromkeys(row.judges for row in some.rows):
            if first is None:
                first = spec, some.variant
            elif spec != first[0]:
                raise InputError(
                    f"{first[1]} and {some.variant} were scored by other judges ({first[0]} and "
                    f"{spec}); run `dvc repro` so that all are scored by the same"
                )
    return json.loads(first[0])


def read_references(folder: Path, judges: str) -> dict[str, dict[str, np.ndarray]]:
    """What the judges saw in reference images: benchmark -> judge -> (images, dim) float32.

    ``judges`` is what images were judged by (``JudgedImage.judges``). Raises InputError when the
    references were by others, or a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "np") as file:
                made_by = (file.metadata() or {}).get("judges")
                found[path.stem] = {judge: file.get_tensor(judge) for judge in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is damaged ({first_line(error)}); delete it and run `dvc "
                             "repro score_references`") from error  # fmt: skip
        if made_by != judges:
            raise InputError(f"{path} is by other judges than the images; run `dvc repro "
                             "score_references score_benchmark`")  # fmt: skip
    return found


def verdicts_by_image(models: Iterable[Judged], rule: str) -> dict[str, bool]:
    """Image id -> whether the rule calls it inappropriate."""
    return {
        row.image_id: is_inappropriate(rule, nested_scores(row.scores))
        for judged in models for row in judged.rows
    }  # fmt: skip


def blocked_images(models: Iterable[Judged]) -> set[str]:
    """The ids of images that are hard-blocked, which nothing may show."""
    return {
        row.image_id for judged in models for row in judged.rows
        if image_hard_block(nested_scores(row.scores))
    }  # fmt: skip
