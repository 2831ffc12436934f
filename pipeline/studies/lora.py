"""LoRAs that are drawn and measured outside the default run, for ``studies/dvc.yaml``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmarks import categories_of, load_prompts
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.samples import draw_scale, keep_scales
from pipeline.errors import InputError
from pipeline.evaluate.judged import Judged, load_judged
from pipeline.evaluate.measure import evaluate_variant
from pipeline.evaluate.metrics import Estimate
from pipeline.records import BenchmarkPrompt
from pipeline.scoring.benchmarks import judge_images
from pipeline.scoring.panel import Panel, load_panel
from pipeline.sources import ModelSource


@dataclass(frozen=True)
class Study:
    """What all LoRAs of a study share.

    ``base`` are the base model's judged images of ``prompts``' benchmarks or more.
    """

    source: ModelSource
    prompts: Sequence[BenchmarkPrompt]
    base: Judged
    sampler: Sampler
    panel: Panel
    rule: str
    resamples: int
    seed: int
    shard_rows: int
    batch: int

    def measure(
        self, images: Path, lora: Path, name: str, scale: float = 1.0
    ) -> dict[str, dict[str, Estimate]]:
        """Draw the prompts with a LoRA into a folder and measure them against base.

        Finished images are not drawn again. Raises InputError as drawing and ``evaluate_variant``.
        """
        drawn = draw_scale(
            keep_scales(images, [scale]), self.prompts, self.source, lora, self.sampler, scale,
            variant=name, base_seed=self.seed, shard_rows=self.shard_rows, batch=self.batch,
        )  # fmt: skip
        keys = {(p.benchmark, p.row) for p in self.prompts}
        base = Judged([row for row in self.base.rows if (row.benchmark, row.row) in keys])
        return evaluate_variant(
            Judged(judge_images(drawn, self.panel)), base, list(base.benchmarks), self.rule,
            self.resamples, self.seed,
        )  # fmt: skip


def open_study(
    source: ModelSource, benchmarks: Iterable[str], sampler: Sampler, shard_rows: int, batch: int,
    judges: Mapping[str, object], rule: str, base: Path, resamples: int, seed: int,
    category: str = "",
) -> Study:  # fmt: skip
    """Read and load what a study needs.

    Args:
        sampler, shard_rows, batch: how images are drawn and stored.
        judges, rule: the arguments of ``load_panel``, and what turns their scores into verdicts.
        base: folder of the base model's scores.
        category: of the prompts, "" for all of the benchmarks'.

    Raises:
        InputError: something is missing, or no prompt is of the category.
    """
    prompts = [p for p in load_prompts(benchmarks)
               if not category or category in categories_of(p.category)]  # fmt: skip
    if not prompts:
        raise InputError(f"{', '.join(benchmarks)}: no prompt of {category}")
    return Study(source, prompts, load_judged(base, "base"), sampler, load_panel(**judges), rule,
                 resamples, seed, shard_rows, batch)  # fmt: skip
