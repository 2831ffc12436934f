"""Raw scores as they are held and as they lie in files."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from pipeline.records import Score
from pipeline.seeds import content_id

ImageScores = dict[str, dict[str, float]]  # judge -> score name -> value


def scores_by_image(rows: Iterable[Score]) -> dict[str, ImageScores]:
    """Score rows as image id -> judge -> score name -> value."""
    table: dict[str, ImageScores] = defaultdict(dict)
    for row in rows:
        table[row.image_id][row.judge] = row.scores
    return dict(table)


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
