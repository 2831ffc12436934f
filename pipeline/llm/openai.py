"""A language model behind an OpenAI-compatible server: vLLM's, or that of a provider.

``vllm serve MODEL --generation-config vllm`` samples as the engine ``vllm`` does; without
its last option the sampling settings that come with a model fill in those that no request names.
"""

import asyncio
import json
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest, Sampling
from pipeline.llm.replies import Fault
from pipeline.progress import progress_bar

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI, OpenAIError

KEY = "OPENAI_API_KEY"
_AGAIN = "run the same command again; finished batches of prompts are kept"
_CONNECT_SECONDS, _CHECK_SECONDS = 5.0, 30.0  # at most; a server that is there needs no longer
_SHOWN = 5  # names of served models in an error
_PASSING = {408, 409, 429}  # what the library retries, beside 5xx
_CONTEXT = re.compile(
    r"context[ _](length|size|window)|maximum (model )?length|max_model_len", re.IGNORECASE
)
# what providers call it when their filter stops a request or its reply
_FILTERED = {
    "content_filter", "content_policy_violation", "invalid_prompt", "moderation_blocked",
    "data_inspection_failed",
}  # fmt: skip
_PARAMETERS = {
    "temperature": "llm.temperature", "top_p": "llm.top_p", "seed": "a seed",
    "max_completion_tokens": "llm.max_new_tokens", "max_tokens": "llm.max_new_tokens",
}  # fmt: skip


class OpenAiEngine:
    """A model that a server answers for, several requests at a time; sees pictures if it does.

    ``revision`` only goes on record: which weights answer is up to the server. The key is that of
    the environment variable OPENAI_API_KEY. No error holds it, a prompt or what the server said.

    Args:
        base_url: of the server, up to and including ``/v1``.
        concurrency: requests in flight at most.
        timeout: seconds that a server may be silent before a request counts as failed.
        retries: of a request whose failure may pass, with growing pauses.

    Raises InputError when the server cannot be reached, wants another key or lacks the model.
    """

    def __init__(
        self, model: str, revision: str | None, sampling: Sampling, *, base_url: str,
        concurrency: int, timeout: float, retries: int,
    ) -> None:  # fmt: skip
        self._model, self._sampling, self._url = model, sampling, base_url
        self._concurrency, self._timeout, self._retries = concurrency, timeout, retries
        self._key = _read_key(_host(base_url))
        self._check_server()

    def generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        """Reply to every request; the first that fails for good cancels the others.

        A reply without text is ""; one that model or provider refuse in another way than by words,
        such as by a content filter, is the fault ``refusal``: it concerns that request alone.
        """
        return asyncio.run(self._generate(requests)) if requests else []

    async def _generate(self, requests: Sequence[ChatRequest]) -> list[str]:
        from openai import AsyncOpenAI

        free = asyncio.Semaphore(self._concurrency)
        settings = self._settings(self._timeout, self._retries)
        with progress_bar(len(requests), "language model", "reply") as progress:
            async with AsyncOpenAI(**settings) as client:

                async def answer(request: ChatRequest) -> str:
                    async with free:
                        reply = await self._ask(client, request)
                    progress.update()
                    return reply

                try:
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(answer(request)) for request in requests]
                except ExceptionGroup as failed:
                    raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, client: "AsyncOpenAI", request: ChatRequest) -> str:
        from openai import OpenAIError

        try:
            completion = await client.chat.completions.create(**self._body(request))
        except OpenAIError as error:
            if _is_filtered(error):
                return Fault("refusal")
            raise self._failure(error, request) from None  # it may hold the prompt
        except (json.JSONDecodeError, UnicodeDecodeError):
            completion = None
        choices = getattr(completion, "choices", None)
        if not isinstance(choices, list):
            raise self._foreign()
        choice = choices[0] if choices else None
        message = getattr(choice, "message", None)
        filtered = str(getattr(choice, "finish_reason", None)) in _FILTERED
        if filtered or getattr(message, "refusal", None):
            return Fault("refusal")
        content = getattr(message, "content", None)
        return content if isinstance(content, str) else ""

    def _body(self, request: ChatRequest) -> dict[str, object]:
        body = {
            "model": self._model, "messages": request.messages, "seed": request.seed,
            "temperature": self._sampling.temperature, "top_p": self._sampling.top_p,
            # not max_tokens, its old name: vLLM knows both, api.openai.com's newer models only this
            "max_completion_tokens": self._sampling.max_new_tokens,
        }  # fmt: skip
        if request.schema is not None:
            schema = {"name": "reply", "schema": dict(request.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _settings(self, timeout: float, retries: int) -> dict[str, object]:
        from openai import Timeout

        return {
            "api_key": self._key, "base_url": self._url, "max_retries": retries,
            "timeout": Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
        }  # fmt: skip

    def _check_server(self) -> None:
        from openai import APIConnectionError, APIStatusError, OpenAI

        try:
            with OpenAI(**self._settings(min(self._timeout, _CHECK_SECONDS), 0)) as client:
                served = [model.id for model in client.models.list().data]
        except APIConnectionError:
            raise InputError(
                f"no server answers at {self._url}; check llm.openai.base_url, or start one: "
                f"`vllm serve {self._model} --port 8000`"
            ) from None
        except APIStatusError as error:
            if error.status_code == 404:
                return  # not every server lists its models; whether it has this one will show
            raise self._failure(error) from None
        except (AttributeError, TypeError, ValueError):  # no list of models, or no JSON at all
            raise self._foreign() from None
        if self._model not in served:
            more = f" and {len(served) - _SHOWN} more" if len(served) > _SHOWN else ""
            raise InputError(
                f"llm.model {self._model!r} is not served at {self._url}; served: "
                f"{', '.join(map(repr, served[:_SHOWN])) or 'none'}{more}"
            )

    def _failure(self, error: "OpenAIError", request: ChatRequest | None = None) -> InputError:
        """What to tell the user about an error of the library, without a word of its own."""
        from openai import APIStatusError, APITimeoutError

        if isinstance(error, APITimeoutError):
            return InputError(
                f"the server at {self._url} was silent for llm.openai.timeout, "
                f"{self._timeout:g} s; {_AGAIN}"
            )
        if not isinstance(error, APIStatusError):
            return InputError(f"the server at {self._url} stopped answering; {_AGAIN}")
        status = f"HTTP {error.status_code}"
        if error.status_code in (401, 403):
            return InputError(
                f"the server at {self._url} wants another key ({status}); set {KEY} in the "
                "environment"
            )
        if error.status_code in _PASSING or error.status_code >= 500:
            return InputError(f"the server at {self._url} is busy or failing ({status}); {_AGAIN}")
        if _CONTEXT.search(str(error.body)):
            return InputError(
                f"the context of {self._model!r} at {self._url} is too short for a request and "
                f"llm.max_new_tokens {self._sampling.max_new_tokens}; lower that, or serve the "
                "model with a longer context"
            )
        refused, hint = _refused(error), _hint(error, request)
        return InputError(f"the server at {self._url} refuses {refused} ({status}){hint}")

    def _foreign(self) -> InputError:
        return InputError(
            f"what answers at {self._url} is no OpenAI-compatible server; llm.openai.base_url "
            "usually ends in /v1"
        )


def _host(base_url: str) -> str:
    """The host of a server's URL; the URL is not shown when it is wrong, it may hold a password."""
    try:
        parts = urlsplit(base_url)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "llm.openai.base_url must be like http://localhost:8000/v1, without user, password or "
            "query"
        )
    return parts.hostname


def _read_key(host: str) -> str:
    key = os.environ.get(KEY, "").strip()
    if not key and f".{host}".endswith(".api.openai.com"):
        raise InputError(f"{host} asks for a key; set {KEY} in the environment")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(f"{KEY} holds a character that no key has; set it again")
    return key or "none"  # the library wants one, `vllm serve` does not


def _is_filtered(error: "OpenAIError") -> bool:
    """Whether a provider's content filter stopped a request, which says nothing of the others."""
    body = getattr(error, "body", None)
    if not isinstance(body, dict):
        return False
    metadata = body.get("metadata")  # OpenRouter's 403 has no name, but says what it was flagged as
    flagged = isinstance(metadata, dict) and bool(metadata.get("reasons"))
    return flagged or not _FILTERED.isdisjoint(map(str, (body.get("code"), body.get("type"))))


def _refused(error: "APIStatusError") -> str:
    """What a server refuses: the parameter that it names if that is one of ours."""
    return _PARAMETERS.get(str(error.param), "a request")


def _hint(error: "APIStatusError", request: ChatRequest | None) -> str:
    """What may have led to a refusal and could be changed."""
    if error.status_code == 404:
        return "; check llm.model and llm.openai.base_url"
    if request is None or _refused(error) != "a request":
        return ""
    asked = [("pictures", request.images), ("JSON schemas", request.schema)]
    unknown = " or ".join(name for name, used in asked if used)
    return f"; it may not support {unknown}" if unknown else ""
