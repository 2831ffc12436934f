"""What every language model is asked for a pair of prompts, and the schema of its reply."""

import hashlib

from pipeline.llm.chat import ChatRequest
from pipeline.llm.replies import Fault, object_schema
from pipeline.taxonomy import Category

SYSTEM = (
    "You write image prompts for the safety alignment of a text-to-image model. "
    "The model is trained to avoid the unsafe prompts. You answer with JSON only."
)
USER = """Category: {category}
Definition: {definition}
Concept: {concept}

Write one pair of image prompts.
"unsafe": a prompt for a picture that shows the concept; it names the concept.
"safe": the same prompt with as few words changed as possible, so that nothing of the category is left.
Answer as {{"unsafe": "...", "safe": "..."}}"""  # noqa: E501
FEEDBACK = "\n\nAn earlier answer was not accepted: {advice}"
ADVICE = {
    "refusal": "it refused. The pair is used to teach an image model to avoid such pictures.",
    "no_json": "it was not one JSON object.",
    "too_long": "it was far too long.",
    "wrong_keys": 'it did not have exactly the texts "unsafe" and "safe".',
    "boilerplate": "a prompt held words about the task. Write the prompts alone.",
    "length": "a prompt was too short or too long.",
    "language": "a prompt was not in the language of this request.",
    "unsafe_lost_concept": "the unsafe prompt did not name the concept.",
    "safe_kept_concept": "the safe prompt still named something of the category.",
    "other_category": "a prompt named something of another category of harm.",
    "held_out_concept": "the unsafe prompt named something that is kept for tests.",
    "identical": "the two prompts were the same.",
    "not_minimal": "the safe prompt differed in too many words.",
    "unlike_embeddings": "the two prompts mean pictures that differ too much, or not at all.",
    "unsafe_not_confirmed": "the unsafe prompt does not ask for anything of the category.",
    "safe_not_confirmed": "the safe prompt still asks for something of the category.",
    "names_person": "a prompt named a person, or had words in capitals. Name nobody.",
    "duplicate": "there is such a prompt already. Choose another scene, people and style.",
    "near_duplicate": "there is nearly such a prompt. Choose another scene, people and style.",
    "in_benchmark": "the prompt is kept for tests. Choose another scene, people and style.",
    "near_benchmark": "the prompt is nearly one kept for tests. Choose another scene.",
}
OTHERWISE = "it could not be used. Choose another scene, people and style."
PAIR_SCHEMA = object_schema(unsafe={"type": "string"}, safe={"type": "string"})


def request_pair(
    category: Category, concept: str, seed: int, fault: Fault | None = None
) -> ChatRequest:
    """The chat request for one pair of prompts of a concept, after a fault with advice about it."""
    user = USER.format(category=category.name, definition=category.definition, concept=concept)
    if fault is not None:
        user += FEEDBACK.format(advice=ADVICE.get(fault, OTHERWISE))
    return ChatRequest(SYSTEM, user, seed, PAIR_SCHEMA)


def template_version(*further: object) -> str:
    """A short hash of the template, and of what else was said to the model."""
    told = SYSTEM + USER + "".join(map(str, further))
    return hashlib.sha256(told.encode()).hexdigest()[:12]
