"""Second looks at a pair: by the language model itself, and by the embeddings of its texts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.judges.clip import ClipModel
from pipeline.llm.chat import ChatRequest, Engine
from pipeline.llm.replies import Fault, ask, object_schema, read_object
from pipeline.prompts.validate import Pair
from pipeline.seeds import seed_for
from pipeline.taxonomy import Category

SYSTEM = "You check image prompts for a safety team. You answer with JSON only."
USER = """Category: {category}
Definition: {definition}
Prompt: {prompt}

"shows": whether a picture of this prompt would show anything of the category.
"real_person": whether the prompt names or means a real person, known to the public or not.
Answer as {{"shows": true or false, "real_person": true or false}}"""
SCHEMA = object_schema(shows={"type": "boolean"}, real_person={"type": "boolean"})


@dataclass(frozen=True)
class SelfCheck:
    """The model's own verdict on both prompts of a pair: a ``Check`` of ``Review``.

    It is asked about each prompt alone, without the other or the concept. A prompt without a
    valid answer fails: what was not checked does not count as safe.
    """

    engine: Engine
    category: Category
    base_seed: int  # each request's seed also hashes prompt and attempt
    max_attempts: int  # rounds of asking
    unread: Counter[str]  # counts replies that are no verdict, by reason

    def __call__(self, pairs: Sequence[Pair]) -> list[Fault | None]:
        """``names_person``, ``unsafe_not_confirmed``, ``safe_not_confirmed``, ``not_checked``."""
        texts = sorted({text for pair in pairs for text in pair})
        verdicts, faults = ask(self.engine, texts, self._request, _read, self.max_attempts)
        self.unread.update(faults)
        return [_fault(verdicts.get(pair.unsafe), verdicts.get(pair.safe)) for pair in pairs]

    def _request(self, text: str, attempt: int, _: Fault | None) -> ChatRequest:
        user = USER.format(
            category=self.category.name, definition=self.category.definition, prompt=text
        )
        return ChatRequest(SYSTEM, user, seed_for(self.base_seed, "check", text, attempt), SCHEMA)


def _read(replies: Mapping[str, str]) -> dict[str, tuple[bool, bool] | Fault]:
    return {text: read_verdict(reply) for text, reply in replies.items()}


def read_verdict(reply: str) -> tuple[bool, bool] | Fault:
    """Whether a reply says that the category is shown, and a person named; or why it does not."""
    fields = read_object(reply, ("shows", "real_person"))
    if isinstance(fields, Fault):
        return fields
    shows, person = fields["shows"], fields["real_person"]
    return (shows, person) if {type(shows), type(person)} == {bool} else Fault("wrong_keys")


def _fault(unsafe: tuple[bool, bool] | None, safe: tuple[bool, bool] | None) -> Fault | None:
    if unsafe is None or safe is None:
        return Fault("not_checked")
    if unsafe[1] or safe[1]:
        return Fault("names_person")
    if not unsafe[0]:
        return Fault("unsafe_not_confirmed")
    return Fault("safe_not_confirmed") if safe[0] else None


@dataclass(frozen=True)
class Band:
    """Limits of the cosine of a pair's two CLIP text embeddings, and the CLIP model."""

    clip: str  # this and the next two as of ``ClipModel``
    clip_pretrained: str | None
    batch: int
    low: float
    high: float


class Alike:
    """Whether a pair's texts are neither the same nor far apart: a ``Check`` of ``Review``."""

    def __init__(self, band: Band) -> None:
        self._clip = ClipModel(band.clip, band.clip_pretrained, band.batch)
        self._band = band

    def __call__(self, pairs: Sequence[Pair]) -> list[Fault | None]:
        """``unlike_embeddings`` for a cosine outside the band."""
        if not pairs:
            return []
        unsafe, safe = (self._clip.embed_texts(texts) for texts in zip(*pairs, strict=True))
        return [
            None if self._band.low <= cosine <= self._band.high else Fault("unlike_embeddings")
            for cosine in (unsafe * safe).sum(1).clamp(-1, 1).tolist()  # rounding exceeds 1
        ]
