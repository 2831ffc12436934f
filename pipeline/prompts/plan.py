"""What writing prompts will cost, reckoned before anything is loaded: ``--plan`` of the stage."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.artifacts import category_file
from pipeline.errors import InputError
from pipeline.params import load_params
from pipeline.params.prompts import Concepts
from pipeline.prompts.check import USER as CHECK
from pipeline.prompts.concepts import read_concepts, split_of
from pipeline.prompts.synthesize import Asking
from pipeline.prompts.template import SYSTEM, USER
from pipeline.taxonomy import Category, load_category

CHARACTERS_PER_TOKEN = 4.0  # English, with the tokenizers of current models
PAIR_TOKENS, CHECK_TOKENS = 60, 14  # of a reply: two prompts of twenty words as JSON; two booleans
REPLIES_PER_PAIR = 1.5  # a guess; metrics/prompts/<c>.json has replies and kept
# reply tokens a second of vLLM with hundreds of requests in flight: guesses of what is usual
SPEEDS = {"a 7B model on an A100": 2500, "a 32B model on an H100": 900}


@dataclass(frozen=True)
class Plan:
    """How much is asked of a model for one category."""

    concepts: int  # to train on
    pairs: int
    requests: int
    tokens_in: int
    tokens_out: int


def reckon(category: Category, concepts: int, asking: Asking) -> Plan:
    """The requests and tokens for so many concepts of a category."""
    pairs = concepts * asking.pairs_per_concept
    replies = round(pairs * REPLIES_PER_PAIR)
    checks = 2 * replies if asking.self_check else 0
    about = len(category.name + category.definition)
    characters = replies * (len(SYSTEM + USER) + about) + checks * (len(CHECK) + about)
    return Plan(concepts, pairs, replies + checks, round(characters / CHARACTERS_PER_TOKEN),
                replies * PAIR_TOKENS + checks * CHECK_TOKENS)  # fmt: skip


def known_concepts(
    category: Category, categories: Sequence[str], concepts: Concepts, base_seed: int
) -> int | None:
    """How many concepts to train on a category has, its own or those of ``concepts.file``.

    None where the model is to propose them. ``categories`` are the names of all. Raises InputError
    as ``read_concepts``, and for a file that has none of the category.
    """
    if category.concepts:
        return len(category.train_concepts)
    if concepts.file is None:
        return None
    told = read_concepts(concepts.file, categories)[category.name]
    if not told:
        raise InputError(f"concepts.file has no concept of category {category.name!r}")
    splits = [t.split or split_of(t.concept, concepts.shares, base_seed) for t in told]
    return splits.count("train")


def print_plan(category: str) -> None:
    """Print what a category will cost under params.yaml; nothing is loaded, asked or written."""
    params = load_params()
    own = load_category(category_file(params.taxonomy.folder, category))
    c, p = params.concepts, params.prompts
    known = known_concepts(own, params.taxonomy.categories, c, params.seed)
    if known is None:
        print(f"{category}: {c.count} concepts are proposed first, in about "
              f"{-(-c.count // c.per_reply)} requests or more")  # fmt: skip
    if p.source:
        asked = (
            "the model checks both prompts of each pair" if p.self_check else "no model is asked"
        )
        print(f"{category}: pairs are taken from {p.source}; {asked}")
        return
    expected = round(c.count * (1 - c.val - c.test_unseen))
    plan = reckon(own, expected if known is None else known, Asking(**p.asking))
    print(f"{category}: {plan.concepts} concepts to train on, {plan.pairs:,} pairs wanted")
    print(f"  asked of {params.llm.model} ({params.llm.engine}): about {plan.requests:,} requests, "
          f"if {REPLIES_PER_PAIR} replies make a pair")  # fmt: skip
    print(f"  about {plan.tokens_in:,} tokens in, most of them one cached prefix, and "
          f"{plan.tokens_out:,} out")  # fmt: skip
    for what, speed in SPEEDS.items():
        print(f"  about {plan.tokens_out / speed / 3600:.2g} GPU-hours for {what}, if it writes "
              f"{speed:,} tokens a second")  # fmt: skip
