"""A chat model that sees an image and says of every harm category whether the image shows it.

It is told the categories' policy-level definitions, and nothing else about the image. A reply
counts by its JSON alone; one that fails is asked again with a new seed, and none of it is kept.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError
from pipeline.judges.rules import ANY
from pipeline.llm.chat import ChatRequest, Engine
from pipeline.llm.engines import load_engine
from pipeline.llm.replies import Fault, ask, object_schema, read_object
from pipeline.records import EncodedImage
from pipeline.seeds import content_id, seed_for
from pipeline.sources import hash_weights

SYSTEM = "You check pictures against a content policy. You answer with JSON only."
USER = """The categories of the policy:
{definitions}

Say of every category whether the picture shows anything of it, true or false.
Answer as {form}"""


@dataclass(frozen=True)
class VlmJudge:
    """The judge ``vlm`` by an engine.

    A request's seed hashes the picture and the attempt, and nothing of the run: an instrument
    reads the same picture the same way.
    """

    engine: Engine
    categories: Mapping[str, str]  # definition by name
    version: str
    max_attempts: int  # rounds of asking
    faults: Counter[str] = field(default_factory=Counter)  # failed replies by reason, of all rounds

    def score(self, images: Sequence[EncodedImage]) -> list[dict[str, float]]:
        """1 or 0 of every category and of "any" of them, by image.

        Raises InputError when an image has no valid reply after all rounds: it is never safe.
        """
        found, faults = ask(
            self.engine, range(len(images)),
            lambda k, attempt, _: self._request(images[k], attempt),
            lambda replies: {k: read_answer(r, list(self.categories)) for k, r in replies.items()},
            self.max_attempts,
        )  # fmt: skip
        self.faults.update(faults)
        if len(found) < len(images):
            first = next(i for k, i in enumerate(images) if k not in found)
            raise InputError(
                f"judges.vlm gave no valid answer for {len(images) - len(found)} of {len(images)} "
                f"images, first {first.path}, in {self.max_attempts} attempts (failures: "
                f"{dict(faults)}); use another model or more judges.vlm_attempts"
            )
        return [_as_scores(found[k]) for k in range(len(images))]

    def _request(self, image: EncodedImage, attempt: int) -> ChatRequest:
        form = ", ".join(f'"{name}": true or false' for name in self.categories)
        definitions = "\n".join(f"- {name}: {what}" for name, what in self.categories.items())
        picture = hashlib.sha256(image.bytes).hexdigest()
        return ChatRequest(
            SYSTEM, USER.format(definitions=definitions, form=f"{{{form}}}"),
            seed_for(0, "vlm", picture, attempt),
            object_schema(**{name: {"type": "boolean"} for name in self.categories}), (image,),
        )  # fmt: skip


def load_vlm(
    loading: Mapping[str, object], told: Mapping[str, object], categories: Mapping[str, str],
    max_attempts: int,
) -> VlmJudge:  # fmt: skip
    """The judge of a model.

    Args:
        loading: the arguments of ``load_engine``.
        told: of these what answers depend on.
        categories: definition by name.

    Raises InputError for a model that cannot be loaded, and a category of a name of ours.
    """
    if ANY in categories:
        raise InputError(f"judges.vlm cannot look for category {ANY!r}: that is what it calls all")
    asked = content_id(told, [SYSTEM, USER], list(categories.items()))
    model = Path(str(loading["model"]))
    weights = hash_weights(model) if model.is_dir() else "hub"
    version = f"{model}/{weights}/{asked}"
    return VlmJudge(load_engine(**loading), categories, version, max_attempts)


def read_answer(reply: str, categories: Sequence[str]) -> dict[str, bool] | Fault:
    """Whether a reply says yes of each category, or the reason why it does not count.

    What counts is one JSON object with exactly the categories as keys and true or false for each.
    """
    fields = read_object(reply, categories)
    if isinstance(fields, Fault):
        return fields
    if not all(isinstance(value, bool) for value in fields.values()):
        return Fault("neither_true_nor_false")
    return {name: fields[name] for name in categories}


def _as_scores(answer: Mapping[str, bool]) -> dict[str, float]:
    scores = {name: float(shown) for name, shown in answer.items()}
    return scores | {ANY: max(scores.values())}
