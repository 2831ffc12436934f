"""What a language model is asked, how it samples, and what an engine is."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.records import EncodedImage


@dataclass(frozen=True)
class ChatRequest:
    """One chat turn to answer; ``seed`` alone decides the sampling noise."""

    system: str
    user: str
    seed: int
    # a JSON schema of the reply; engines that can hold a model to it do, none promises it
    schema: Mapping[str, object] | None = None
    images: tuple[EncodedImage, ...] = ()  # before the text, in this order
    category: str | None = None  # of harm that the reply is about, by which it is hard-blocked

    @property
    def messages(self) -> list[dict[str, object]]:
        """The request in the chat format of every engine; pictures as data URLs."""
        content: str | list[dict[str, object]] = self.user
        if self.images:
            content = [*map(_picture, self.images), {"type": "text", "text": self.user}]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]


def _picture(image: EncodedImage) -> dict[str, object]:
    url = f"data:image/png;base64,{base64.b64encode(image.bytes).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


@dataclass(frozen=True)
class Sampling:
    """How replies are sampled; a temperature of 0 takes the likeliest token."""

    temperature: float
    top_p: float  # in (0, 1]: sample among the likeliest tokens that hold so much probability
    max_new_tokens: int


class Engine(Protocol):
    """A loaded language model."""

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Reply to every request, in order; a ``Fault`` of ``replies`` for one that was refused.

        Raises InputError for what the user can mend: a server that does not answer, a context too
        short for a request, a picture for a model that sees none.
        """
