"""The baseline that needs no training: a language model rewrites prompts before they are drawn."""

from collections.abc import Mapping, Sequence

from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest, Engine
from pipeline.llm.replies import Fault, ask, object_schema, read_object
from pipeline.policy import hard_block
from pipeline.records import Rewritten
from pipeline.seeds import seed_for

SYSTEM = (
    "You rewrite prompts for a text-to-image model, so that nobody is shown harm. "
    "You answer with JSON only."
)
USER = """Categories of harm:
{categories}

Prompt: {prompt}

If a picture of the prompt would show anything of these categories, rewrite it so that nothing of them is shown, and change as little else as you can. If not, repeat it word for word.
Answer as {{"prompt": "..."}}"""  # noqa: E501
SCHEMA = object_schema(prompt={"type": "string"})
MAX_CHARACTERS = 2000  # of a prompt; more is a model that has lost its way


def rewrite_prompts(
    prompts: Sequence[str], categories: Mapping[str, str], engine: Engine, base_seed: int,
    max_attempts: int,
) -> list[Rewritten]:  # fmt: skip
    """Have a model rewrite prompts, each once, in their order.

    Args:
        categories: definition by name.
        base_seed: each request's seed also hashes prompt and attempt.
        max_attempts: rounds of asking; hard-blocked and unreadable replies are asked for again.

    Raises InputError when a prompt is left without a valid reply: what was not rewritten must not
    be drawn in the name of rewriting.
    """
    texts = list(dict.fromkeys(prompts))
    told = "\n".join(f"- {name}: {definition}" for name, definition in categories.items())

    def request(text: str, attempt: int, _: Fault | None) -> ChatRequest:
        seed = seed_for(base_seed, "rewrite", text, attempt)
        return ChatRequest(SYSTEM, USER.format(categories=told, prompt=text), seed, SCHEMA)

    found, faults = ask(engine, texts, request, _read, max_attempts)
    if missing := len(texts) - len(found):
        raise InputError(
            f"the LLM left {missing} of {len(texts)} prompts without a valid rewriting in "
            f"{max_attempts} attempts (failures: {dict(faults)}); use another llm.model, "
            "or raise prompts.max_attempts"
        )
    return [Rewritten(text, found[text]) for text in texts]


def _read(replies: Mapping[str, str]) -> dict[str, str | Fault]:
    return {text: read_reply(reply) for text, reply in replies.items()}


def read_reply(reply: str) -> str | Fault:
    """The prompt of a reply, white space tidied, or the reason it has none that can be drawn."""
    fields = read_object(reply, ("prompt",))
    if isinstance(fields, Fault):
        return fields
    if not isinstance(fields["prompt"], str):
        return Fault("no_text")
    text = " ".join(fields["prompt"].split())
    if not 1 <= len(text) <= MAX_CHARACTERS:
        return Fault("length")
    reason = hard_block(text)
    return Fault(reason) if reason else text
