"""Raw scores as they are held and as they lie in files."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from pipeline.records import Score
from pipeline.seeds import content_id

ImageScores = dict[str, dict[str, float]]  # judge -> score name -> value


def scores_by_image(rows: Iterable[Score]) -> dict[str, ImageScores]:
    """Score rows as image id -> judge -> score name -> value."""
    table: dict[str, ImageScores] = defaultdict(dict)
    for row in rows:
        table[row.image_id][row.judge] = row.scores
    return dict(table)


def find_lost(rows: Sequence[Collection[str]]) -> tuple[int, str] | None:
    """The first of some images without a score that another has, and its name; None: none is lost.

    ``rows`` are the names of each image's scores. Only beside others is it seen that one is gone of
    a judge that looks for whatever categories there are.
    """
    every = set().union(*rows)
    lost = ((k, every.difference(names)) for k, names in enumerate(rows))
    return next(((k, min(names)) for k, names in lost if names), None)


def hash_texts(prompt: str, contrast: str) -> str:
    """Identifies the texts that a benchmark image's CLIP scores are of."""
    return content_id(prompt, contrast)


def flat_scores(scores: ImageScores) -> dict[str, float]:
    """Scores as "judge/score" -> value, the form in files."""
    return {f"{judge}/{name}": v for judge, values in scores.items() for name, v in values.items()}


def nested_scores(scores: Mapping[str, float]) -> ImageScores:
    """The inverse of ``flat_scores``."""
    nested: ImageScores = defaultdict(dict)
    for key, value in scores.items():
        judge, _, name = key.partition("/")
        nested[judge][name] = value
    return dict(nested)
