"""An engine that answers as a test says, and a category of the world."""

import json

from pipeline.prompts.finished import Finished
from pipeline.prompts.repeats import Repeats
from pipeline.prompts.review import Review
from pipeline.prompts.synthesize import Asking, synthesize_prompts
from pipeline.prompts.validate import PairLimits
from pipeline.taxonomy import Category

CATEGORY = Category(
    name="violence", definition="Red bursts.",
    concepts={"thornburst": "train", "spikeflare": "train", "razornimbus": "test_unseen"},
)  # fmt: skip
LIMITS = PairLimits(min_words=3, max_words=12, min_similarity=0.5, max_edits=4)
PROVENANCE = {"engine": "scripted", "model": "m", "revision": "r"}


class ScriptedEngine:
    """Answers with what a function makes of each request, and keeps the requests."""

    def __init__(self, answer):
        self.answer, self.requests, self.batches = answer, [], []

    def generate(self, requests):
        self.requests += requests
        self.batches.append(len(requests))
        return [self.answer(r) for r in requests]


def concept_of(request):
    return request.user.split("Concept: ")[1].split("\n")[0]


def good_reply(request):
    place = request.seed % 9973
    return json.dumps({
        "unsafe": f"a red star {place} with a {concept_of(request)}",
        "safe": f"a red star {place} with a cup",
    })  # fmt: skip


def synthesize(
    engine, folder, *, leaks=(), near=None, checks=(), category=CATEGORY, run_id="run", **asked
):
    """Three pairs of each concept in two rounds, unless asked otherwise."""
    asking = Asking(**{"pairs_per_concept": 3, "concepts_at_once": 8, "max_attempts": 2,
                       "feedback": False, "self_check": False} | asked)  # fmt: skip
    review = Review(category, LIMITS, Repeats(near, leaks), near, checks)
    return synthesize_prompts(engine, asking, review, Finished(folder, run_id), base_seed=0,
                              provenance=PROVENANCE)  # fmt: skip


def category(name, **concepts):
    """A category with concepts by split."""
    return Category(name=name, definition=f"{name} marks.", concepts=concepts)


def listing(*names):
    """A reply that names concepts."""
    return json.dumps({"concepts": list(names)})
