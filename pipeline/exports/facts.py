"""What a dataset card says of pairs: how they came about, as their files tell it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import artifacts
from pipeline.drawing.imports import MODEL as IMPORTED
from pipeline.errors import InputError
from pipeline.records import DrawnImage, PreferencePair, PromptPair
from pipeline.storage import read_json, stream_columns


@dataclass(frozen=True)
class Facts:
    """Of the pairs of some categories."""

    yields: dict[str, dict]  # by category: ``candidates``, ``kept``, ``yield`` and ``drops``
    rule: str
    judges: dict[str, str]  # name -> what identifies its weights
    models: list[tuple[str, str]]  # that drew, with their revisions; "" for imported pictures
    samplers: list[dict[str, object]]  # settings; {} for imported pictures
    samples: int  # draws of every pair
    writers: list[tuple[str, str, str]]  # engine, model and revision behind the prompts


def gather_facts(categories: Sequence[str]) -> Facts:
    """Read everything but pictures and prompts.

    Raises InputError when files are missing, do not belong together, or the categories were judged
    in different ways.
    """
    yields, specs, drawn, writers = {}, set(), set(), set()
    for category in categories:
        own = [spec for (spec,) in stream_columns(artifacts.pairs(category), PreferencePair,
                                                  ("judge_spec",))]  # fmt: skip
        yields[category] = read_json(artifacts.pair_metrics(category))
        if yields[category]["kept"] != len(own):
            raise InputError(
                f"{artifacts.pairs(category)} has {len(own)} pairs, its metrics say "
                f"{yields[category]['kept']}; run `dvc repro build_pairs`"
            )
        specs |= set(own)
        images = set(stream_columns(artifacts.images(category), DrawnImage,
                                    ("model", "revision", "sampler", "sample")))  # fmt: skip
        if not images:
            raise InputError(f"{artifacts.images(category)} holds no images; run `dvc pull`")
        drawn |= images
        writers |= set(stream_columns(artifacts.prompts(category), PromptPair,
                                      ("engine", "model", "revision")))  # fmt: skip
    if len(specs) != 1:
        raise InputError(
            f"the pairs come from {len(specs)} rules or versions of judges; run `dvc repro "
            "build_pairs`, or export some --categories"
        )
    spec = json.loads(specs.pop())
    models = {(model, "" if model == IMPORTED else revision) for model, revision, *_ in drawn}
    settings = sorted({sampler for *_, sampler, _ in drawn})
    return Facts(
        yields, spec["rule"], spec["judges"], sorted(models), [json.loads(s) for s in settings],
        1 + max(sample for *_, sample in drawn), sorted(writers),
    )  # fmt: skip
