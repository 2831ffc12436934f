"""One category's pairs from start to end: the rules put together, the source asked."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.llm.chat import Engine
from pipeline.llm.engines import OnDemand
from pipeline.llm.kept import KeptReplies
from pipeline.prompts.check import Alike, Band, SelfCheck
from pipeline.prompts.finished import Finished
from pipeline.prompts.imports import import_prompts
from pipeline.prompts.language import is_in
from pipeline.prompts.repeats import Repeats
from pipeline.prompts.review import Check, Review
from pipeline.prompts.synthesize import Asking, synthesize_prompts
from pipeline.prompts.validate import PairLimits
from pipeline.records import PromptPair
from pipeline.seeds import content_id
from pipeline.storage import file_id
from pipeline.taxonomy import Category

CHECK_ATTEMPTS = 3  # rounds of asking for a verdict


@dataclass(frozen=True)
class Rules:
    """What pairs must satisfy beside being of their category."""

    limits: PairLimits
    near_duplicate: float | None  # as of ``Repeats``
    band: Band | None  # None: embeddings are not compared


def make_rules(
    *, near_duplicate: float | None, embeddings: Mapping[str, object] | None, **limits: object
) -> Rules:
    """Rules from plain values: the fields of ``Band``, if any, and those of ``PairLimits``.

    Raises InputError for a language that cannot be told.
    """
    if limits["language"] is not None:
        is_in(limits["language"], "")
    band = Band(**embeddings) if embeddings is not None else None
    return Rules(PairLimits(**limits), near_duplicate, band)


def make_prompts(
    category: Category, source: Path | None, load: Callable[[], Engine], asking: Asking,
    rules: Rules, benchmarks: Sequence[str], *, folder: Path, base_seed: int,
    provenance: Mapping[str, object],
) -> tuple[list[PromptPair], dict[str, object]]:  # fmt: skip
    """Take a category's pairs from ``source``, or have a model write them where that is None.

    Args:
        load: the language model, when it is first asked: not for finished batches; for pairs of a
            file by the self-check only.
        benchmarks: prompts that no pair may hold.
        folder: where an unfinished run is kept.
        provenance: ``engine``, ``model`` and ``revision`` of the rows, ``sampling``, ``options``.

    Returns and raises as ``import_prompts`` and ``synthesize_prompts``; with a self-check,
    ``unread_verdicts`` of the second value counts its replies that were none, by reason.
    """
    checks: list[Check] = [Alike(rules.band)] if rules.band is not None else []
    leaks = Repeats(rules.near_duplicate, benchmarks)
    unread: Counter[str] = Counter()
    # finished batches hold the verdicts of pairs that a model writes; of a file's they are kept
    engine = OnDemand(load) if source is None else KeptReplies(load, folder, content_id(provenance))
    if asking.self_check:
        checks.append(SelfCheck(engine, category, base_seed, CHECK_ATTEMPTS, unread))
    review = Review(category, rules.limits, leaks, rules.near_duplicate, checks, unread)
    if source is not None:
        pairs, metrics = import_prompts(source, review, file_id(source))
    else:
        run_id = content_id(
            category.model_dump(), asdict(asking), asking.template_version, asdict(rules),
            sorted(benchmarks), base_seed, provenance,
        )  # fmt: skip
        columns = {key: provenance[key] for key in ("engine", "model", "revision")}
        pairs, metrics = synthesize_prompts(engine, asking, review, Finished(folder, run_id),
                                            base_seed=base_seed, provenance=columns)  # fmt: skip
    if asking.self_check:
        metrics["unread_verdicts"] = dict(sorted(unread.items()))
    return pairs, metrics
