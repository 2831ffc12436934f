"""The model card of a shipped LoRA: what it is, how it was made, what was measured, its limits.

Markdown with the Hugging Face Hub's YAML front matter. Categories are only named, and every number
and setting comes from the arguments.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from pipeline.artifacts import LORA_FILE
from pipeline.drawing.pipelines import ADAPTER
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.evaluate.measures import MEASURES, in_order, measure, show, show_interval, title
from pipeline.judges.rules import CLIP, NUDENET, Q16, RULES, VLM, ZERO_SHOT
from pipeline.sources import ModelSource

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]  # benchmark -> metric -> estimate

KOHYA_FILE = "kohya.safetensors"
FUSED = "fused"  # folder of the whole model
BOUNDARY = "A removable LoRA is not a security boundary."
FOLDER = "path/to/this/folder"  # in the snippets
# keys of the provenance that have a place of their own on the card
SAID_ELSEWHERE = {"categories", "base_model", "base_revision", "experts", "expert_scale", "method"}


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table, ready to print."""

    title: str
    base: str
    base_n: int | str
    lora: str
    lora_n: int


def model_card(
    provenance: Mapping[str, object], rank: int, *, base: ModelSource,
    evaluation: Metrics, base_evaluation: Metrics, rule: str, judges: Mapping[str, str],
    sampler: Sampler, chosen_on: Sequence[str] = (), fused: bool = False,
    license: str | None = None,
) -> str:  # fmt: skip
    """The card of a merged LoRA, equal for equal arguments.

    Args:
        provenance: as ``pipeline.merging.methods`` writes it into the LoRA's header.
        rank: of the LoRA's layers.
        base: where the base model comes from.
        evaluation: the metrics of the LoRA; ``base_evaluation`` those of the base model.
        rule: name of the rule behind ``ip``.
        judges: judge name -> what identifies its weights.
        sampler: how the measured images were drawn.
        chosen_on: benchmarks that settings were chosen on.
        fused: whether the whole model is shipped too.
        license: of the LoRA, by the Hub's name.

    Raises:
        InputError: the provenance lacks keys, the two evaluations do not hold the same metrics,
            or a judge that the rule needs has no version.
    """
    _require(provenance, ("categories", "method", "recipe", "base_revision", "experts",
                          "expert_scale"), "the LoRA's provenance")  # fmt: skip
    _require(provenance["recipe"], ("strength",), "the LoRA's provenance, its recipe,")
    _check_evaluations(evaluation, base_evaluation)
    source = (Path(__file__).parent / "model_card.md.jinja").read_text(encoding="utf-8")
    template = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # Markdown, not HTML
    ).from_string(source)  # fmt: skip
    return template.render(
        front_matter=_front_matter(base, evaluation, license), base=base, made=provenance,
        rank=rank, fused=fused,
        settings=_settings(provenance),
        experts=_expert_rows(provenance), tables=_tables(evaluation, base_evaluation),
        measures=[m for name, m in MEASURES.items() if any(name in e for e in evaluation.values())],
        sampler=sampler, chosen_on=chosen_on, rule=rule, verdict=_verdict(rule, judges),
        source=RULES[rule].source, judges=judges,
        smallest=min(e["n"] for metrics in evaluation.values() for e in metrics.values()),
        worst=_worst_category(evaluation), blocked=_over_blocking(evaluation),
        unmeasured=[c for c in provenance["categories"]
                    if not any(f"ip/{c}" in metrics for metrics in evaluation.values())],
        boundary=BOUNDARY, lora_file=LORA_FILE, kohya_file=KOHYA_FILE, fused_folder=FUSED,
        folder=FOLDER, adapter=ADAPTER,
    )  # fmt: skip


def _require(values: Mapping[str, object], keys: Iterable[str], what: str) -> None:
    missing = [key for key in keys if key not in values]
    if missing:
        raise InputError(
            f"{what} lacks {', '.join(missing)}; it has {', '.join(values) or 'nothing'}. Only "
            "merged LoRAs are shipped: run `dvc repro merge_experts`"
        )


def _check_evaluations(evaluation: Metrics, base_evaluation: Metrics) -> None:
    """Raise InputError unless both hold the same metrics of the same benchmarks, and some.

    But for those measured from the base model, which need not be there for itself.
    """
    here, there = (
        {(name, metric) for name, metrics in e.items() for metric in metrics}
        for e in (evaluation, base_evaluation)
    )
    here -= {(name, metric) for name, metric in here - there if measure(metric).from_base}
    if not here | there:
        raise InputError("the evaluations hold no benchmark; run `dvc repro evaluate`")
    for whose, odd in (("LoRA", there - here), ("base model", here - there)):
        if odd:
            raise InputError(
                f"the evaluation of the {whose} lacks {len(odd)} metrics that the other has, "
                f"first {'/'.join(min(odd))} (benchmark/metric); run `dvc repro evaluate` for both"
            )


def _front_matter(base: ModelSource, evaluation: Metrics, license: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-to-image", dataset_type=benchmark, dataset_name=benchmark,
            metric_type=metric, metric_value=metrics[metric]["value"],
            metric_args={k: metrics[metric][k] for k in ("low", "high", "n")},
        )
        for benchmark, metrics in sorted(evaluation.items()) for metric in in_order(metrics)
    ]  # fmt: skip
    hub = base.revision is not None  # the Hub refuses a base_model that is no id of its own
    return ModelCardData(
        base_model=base.path if hub else None, base_model_relation="adapter" if hub else None,
        library_name="diffusers", pipeline_tag="text-to-image",
        tags=["text-to-image", "diffusers", "lora", "safety", "alignment"],
        model_name="safety-lora", eval_results=results, license=license,
    ).to_yaml()  # fmt: skip


def _show(metric: str, estimate: Mapping[str, float]) -> str:
    return f"{show(metric, estimate['value'])} ({show_interval(metric, estimate)})"


def _show_base(metric: str, estimate: Mapping[str, float] | None) -> str:
    """As ``_show``, but for what the base model is not measured on: itself, without redraws."""
    kind = metric.split("/")[0]
    if estimate is None or kind == "over_block" or (kind == "cmmd" and estimate["high"] == 0):
        return "–"
    return f"{_show(metric, estimate)} (other seeds)" if kind == "cmmd" else _show(metric, estimate)


def _tables(evaluation: Metrics, base_evaluation: Metrics) -> dict[str, list[Row]]:
    tables = {}
    for benchmark, metrics in sorted(evaluation.items()):
        there = base_evaluation[benchmark]
        tables[benchmark] = [
            Row(title(m), _show_base(m, there.get(m)), there[m]["n"] if m in there else "–",
                _show(m, metrics[m]), metrics[m]["n"])
            for m in in_order(metrics)
        ]  # fmt: skip
    return tables


def _settings(provenance: Mapping[str, object]) -> list[tuple[str, str]]:
    """Name and JSON value of everything in the header that the card does not say elsewhere."""
    rows = []
    for name in sorted(provenance.keys() - SAID_ELSEWHERE):
        value = provenance[name]
        inner = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {}
        shown = inner or {name: value}
        rows += [(key, json.dumps(shown[key], sort_keys=True)) for key in sorted(shown)]
    return rows


def _expert_rows(provenance: Mapping[str, object]) -> list[dict[str, object]]:
    rows = []
    for name, made in sorted(provenance["experts"].items()):
        where = f"the LoRA's provenance of expert {name}"
        _require(made, ("metrics", "recipe_hash", "data"), where)
        _require(made["metrics"], ("pairs",), f"{where}, its metrics,")
        _require(provenance["expert_scale"], (name,), "the LoRA's provenance, its expert_scale,")
        rows.append({
            "name": name, "pairs": made["metrics"]["pairs"], "recipe": made["recipe_hash"],
            "data": ", ".join(f"`{digest}`" for _, digest in sorted(made["data"].items())),
            "scale": provenance["expert_scale"][name],
        })  # fmt: skip
    return rows


def _verdict(rule: str, judges: Mapping[str, str]) -> str:
    """What a rule calls inappropriate, in words."""
    if rule not in RULES:
        raise InputError(f"unknown rule {rule!r}; known: {', '.join(RULES)}")
    parts, needed = [], [CLIP]
    if (margin := RULES[rule].q16_margin) is not None:
        needed.append(Q16)
        surely = f" by more than {margin:.3g}" if margin else ""
        parts.append(f"Q16 scores inappropriate above not inappropriate{surely}")
    if classes := RULES[rule].nudenet_classes:
        needed.append(NUDENET)
        parts.append(f"NudeNet scores one of the rule's {len(classes)} classes above "
                     f"{RULES[rule].threshold:g}")  # fmt: skip
    if (margin := RULES[rule].zero_shot_margin) is not None:
        needed.append(ZERO_SHOT)
        parts.append(f"CLIP finds a category's concepts nearer than neutral texts by more than "
                     f"{margin:g}")  # fmt: skip
    if RULES[rule].vlm:
        needed.append(VLM)
        parts.append("a model that sees the image says that it shows a category")
    missing = [judge for judge in needed if judge not in judges]
    if missing:
        raise InputError(
            f"rule {rule!r} needs the judges {', '.join(needed)}, and the versions of "
            f"{', '.join(missing)} are not among the evaluation's scores; run `dvc repro evaluate`"
        )
    return ", or ".join(parts)


def _worst_category(evaluation: Metrics) -> str:
    """The highest IP of a category on a benchmark, "" where none is measured."""
    found = [(e["value"], e["high"], benchmark, name) for benchmark, metrics in evaluation.items()
             for name, e in metrics.items() if name.startswith("ip/")]  # fmt: skip
    if not found:
        return ""
    _, _, benchmark, name = max(found)
    estimate = evaluation[benchmark][name]
    category = name.removeprefix("ip/")
    return f"{_show(name, estimate)}, n = {estimate['n']}, of {category} on `{benchmark}`"


def _over_blocking(evaluation: Metrics) -> list[str]:
    return [
        f"{_show('over_block', m['over_block'])}, n = {m['over_block']['n']}, on `{benchmark}`"
        for benchmark, m in sorted(evaluation.items()) if "over_block" in m
    ]  # fmt: skip
