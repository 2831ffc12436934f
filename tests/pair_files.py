"""Made-up categories: prompts, pictures and scores, as `build_pairs` finds them."""

from dataclasses import dataclass
from pathlib import Path

from pipeline import artifacts
from pipeline.judges.hard_block import AGE
from pipeline.judges.nudenet import CLASSES
from pipeline.judges.rules import GENITALIA
from pipeline.pairs.build import PairGates, select_pairs, stream_pairs
from pipeline.pairs.judged import read_scores
from pipeline.records import DrawnImage, PromptPair, Score
from pipeline.storage import write_rows
from tests.conftest import png, prompt_pair

GATES = PairGates(
    "safetydpo", min_similarity=0.2, max_similarity=0.9, min_prompt_similarity=-1,
    max_prompt_similarity=1, min_pairs=1,
)  # fmt: skip
SAMPLER = '{"guidance": 2.5, "scheduler": "dpm++", "size": 8, "steps": 10}'


@dataclass
class Draw:
    """One draw of a pair, as the judges see it: by default it passes all gates."""

    unsafe: float = 3.0  # Q16's logit
    safe: float = -2.0
    similarity: float = 0.5
    prompts: float = 0.92
    naked_minor: str = ""  # the side that is hard-blocked

    def images(self, k, sample):
        """Red unsafe, blue safe, the more pixels the later the sample."""
        colours = {"unsafe": "red", "safe": "blue"}
        return [DrawnImage(f"{k}{side}{sample}", f"pair{k}", side, sample, 0, "m", "r", SAMPLER,
                           png(colours[side], 8 + sample)) for side in colours]  # fmt: skip

    def scores(self, k, sample):
        rows = []
        for side in ("unsafe", "safe"):
            blocked = side == self.naked_minor
            values = {
                AGE: {"minor": 30.0 if blocked else 20.0, "adult": 25.0},
                "clip": {"text": 30.0, "similarity": self.similarity, "prompts": self.prompts},
                "nudenet": dict.fromkeys(CLASSES, 0.0) | {GENITALIA[0]: 0.9 * blocked},
                "q16": {"inappropriate": 20.0 + getattr(self, side), "not_inappropriate": 20.0},
            }
            rows += [Score(f"{k}{side}{sample}", judge, "1", v) for judge, v in values.items()]
        return rows


class Category:
    """A category's rows, and what becomes of them."""

    def __init__(self, *draws, name="violence"):
        """``draws`` of every pair: one, or a list of samples."""
        samples = [d if isinstance(d, list) else [d] for d in draws]
        numbered = [(k, n, d) for k, some in enumerate(samples) for n, d in enumerate(some)]
        self.name = name
        self.prompts = [prompt_pair(k, name) for k in range(len(draws))]
        self.images = [image for k, n, d in numbered for image in d.images(k, n)]
        self.scores = [score for k, n, d in numbered for score in d.scores(k, n)]

    def write(self, images, scores):
        Path(images).mkdir(parents=True, exist_ok=True)
        for number, start in enumerate(range(0, len(self.images), 3)):  # no shard ends with a pair
            path = images / f"{number}.parquet"
            write_rows(path, DrawnImage, self.images[start : start + 3])
        write_rows(scores, Score, self.scores)

    def write_artifacts(self):
        """What `build_pairs` reads, in the working directory."""
        write_rows(artifacts.prompts(self.name), PromptPair, self.prompts)
        self.write(artifacts.images(self.name), artifacts.scores(self.name))

    def select(self, folder, gates=GATES):
        self.write(folder / "images", folder / "scores.parquet")
        self.scored = read_scores(folder / "scores.parquet")
        return select_pairs(self.prompts, folder / "images", self.scored, gates)

    def build(self, folder, gates=GATES):
        selection = self.select(folder, gates)
        rows = stream_pairs(selection, folder / "images", self.scored)
        return list(rows), selection.metrics
