"""What it costs to check and deduplicate prompt pairs: ``python -m bench.prompts``.

Replies as a language model writes them, for concepts that mean nothing; one in twenty is an exact
copy of an earlier one, one in twenty a copy but for one word, one in a hundred has a benchmark's
prompt. They are one category's, so that each is looked for among all that were accepted before.
They are judged as the stage does it, in batches: read, validated with the concepts of other
categories and of tests in view, both prompts looked for in benchmarks, the unsafe one among the
accepted. Looking alone is also done the naive way, every text against all earlier ones, on the
first few: its time grows with the square of their number.
"""

import argparse
import itertools
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bench.table import publish, row
from pipeline.prompts.duplicates import NearDuplicates
from pipeline.prompts.finished import split_evenly
from pipeline.prompts.repeats import Repeats
from pipeline.prompts.review import Review
from pipeline.prompts.validate import Pair, PairLimits, read_pair
from pipeline.prompts.words import word_jaccard
from pipeline.taxonomy import Category

CATEGORIES, CONCEPTS, HELD_OUT = 8, 500, 50  # of each category, and how many of them are for tests
BENCHMARKS, LEAKS = 17_000, 100  # prompts; one in so many replies has one
BATCH = 704  # replies judged together: 32 concepts of 22 pairs, as in profiles/sd15.yaml
SIMILARITY = 0.8
LIMITS = PairLimits(min_words=5, max_words=40, min_similarity=0.5, max_edits=4, language="en")
HEADS = """thorn spike razor murk coil gyre vort helix grim ink pitch coal hex bar stripe toll umb
jag gunk trell disc herald""".split()
TAILS = """burst flare nimbus wedge gnat buzz prod nip fold zag barb pleat slat vault lot rib nova
plume shue pale cone quill""".split()
ENDS = ("", "et", "or", "ine", "ax", "um", "ish", "ern", "oon")
STYLES = """a photo of, an oil painting of, a watercolour of, a pencil sketch of, a wide shot of,
a close view of, a poster of, a woodcut of, a film still of, an old postcard of, a comic panel of,
a mural of, a collage of, an isometric drawing of, a charcoal study of, a paper cut of"""
PEOPLE = """an old sailor, two farmers, a tired baker, three musicians, a tall engineer, a painter,
a gardener, several dancers, a grey cat, two huskies, a clockmaker, an astronaut, a juggler,
a librarian, a potter, four rowers, a weaver, a street vendor, a fisherman, a mountaineer,
two chess players, a conductor, a welder, a beekeeper, a postal worker, a violinist, a shepherd"""
DEEDS = """holding, painting, carrying, looking at, standing behind, sitting beside, repairing,
walking around, selling, hiding, drawing, polishing, unpacking, pointing at, leaning on, throwing"""
PLACES = """on a beach, in a crowded market, under a stone bridge, in a sunny kitchen, on a rooftop,
near a lighthouse, in an empty station, beside a frozen lake, in a pine forest, at a bus stop,
inside a greenhouse, on a wooden pier, in a narrow alley, by a campfire, in a desert canyon,
on a theatre stage, in a cluttered workshop, along a canal, at the edge of a wheat field"""
THINGS = """with a red umbrella, with two suitcases, with a bowl of lemons, with paper lanterns,
with a broken clock, with a striped scarf, with a copper kettle, with a stack of books,
with a blue bicycle, with a wicker basket, with fallen leaves, with a brass telescope"""
LIGHTS = """at dawn, at dusk, in heavy rain, under neon signs, in thick fog, by candlelight,
in harsh noon light, in the snow, under a full moon, in soft morning light, during a storm"""
FINISHES = """muted colours, strong contrast, fine detail, grainy film, pastel tones, warm shadows,
deep blue palette, loose brushwork, low angle, long exposure, flat shapes, sepia tint"""
BEFORE, AFTER = (STYLES, PEOPLE, DEEDS), (PLACES, THINGS, LIGHTS, FINISHES)


class Candidate(NamedTuple):
    """A reply, and the concept that was asked for."""

    reply: str
    concept: str


def taxonomy() -> Category:
    """A category of invented words, which knows those of seven others, too."""
    words = ["".join(parts) for parts in itertools.product(HEADS, TAILS, ENDS)]
    random.Random(0).shuffle(words)
    own, others = words[:CONCEPTS], words[CONCEPTS : CATEGORIES * CONCEPTS]
    splits = ["test_unseen"] * HELD_OUT + ["train"] * (CONCEPTS - HELD_OUT)
    return Category(name="marks", definition="Marks.", others=others,
                    concepts=dict(zip(own, splits, strict=True)))  # fmt: skip


def scenes(concepts: Sequence[str], n: int, seed: int) -> list[tuple[str, str]]:
    """Prompts without what they show, for concepts in turn; the same for every call."""
    rng = random.Random(seed)
    phrases = [[[p.strip() for p in slot.split(",")] for slot in part] for part in (BEFORE, AFTER)]
    asked = itertools.cycle(concepts)
    made: list[tuple[str, str]] = []
    for k in range(n):
        kind = rng.random()
        if k and kind < 0.1:
            text, concept = rng.choice(made)
            if kind < 0.05:
                words = text.split()
                words[rng.choice([i for i, w in enumerate(words) if w != "{}"])] = "quiet"
                text = " ".join(words)
        else:
            concept = next(asked)
            before, after = ([rng.choice(slot) for slot in part] for part in phrases)
            text = " ".join([*before, "a {}", *after[: rng.randint(1, len(after))]])
        made.append((text, concept))
    return made


def candidates(category: Category, n: int) -> list[Candidate]:
    """Replies for the category's training concepts."""
    return [
        Candidate(json.dumps({"unsafe": text.format(c), "safe": text.format("kite")}), c)
        for text, c in scenes(category.train_concepts, n, seed=0)
    ]


def benchmark_prompts(category: Category, replies: Sequence[Candidate]) -> list[str]:
    """Prompts that no pair may hold: some of the replies' own, the rest of held-out concepts."""
    own = [read_pair(candidate.reply).safe for candidate in replies[::LEAKS]]
    others = scenes(category.held_out_concepts, BENCHMARKS - len(own), seed=1)
    return own + [text.format(concept) for text, concept in others]


def accept(
    replies: Sequence[Candidate], category: Category, benchmarks: Sequence[str]
) -> Counter[str]:
    """What becomes of every reply: the count of faults, and of the accepted."""
    review = Review(category, LIMITS, Repeats(SIMILARITY, benchmarks), SIMILARITY)
    fates: Counter[str] = Counter()
    for batch in split_evenly(list(enumerate(replies)), BATCH):
        read = {(k, c.concept): read_pair(c.reply) for k, c in batch}
        judged = review.judge(read, concept_of=lambda key: key[1])
        fates.update("accepted" if isinstance(v, Pair) else str(v) for v in judged.values())
    return fates


def search(texts: Sequence[str]) -> Iterator[int]:
    """Positions of texts like an earlier one, by the index."""
    found = NearDuplicates(SIMILARITY)
    for k, text in enumerate(texts):
        if found.find(text) is not None:
            yield k
        found.add(str(k), text)


def compare_all(texts: Sequence[str]) -> Iterator[int]:
    """The same by comparing each with all before."""
    for k, text in enumerate(texts):
        if any(word_jaccard(text, earlier) >= SIMILARITY for earlier in texts[:k]):
            yield k


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """How long something takes, and what it gives."""
    start = time.monotonic()
    result = work()
    return time.monotonic() - start, result


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--naive", type=int, default=2_000, help="texts compared with all others")
    args = parser.parse_args()
    category = taxonomy()
    replies = candidates(category, args.pairs)
    benchmarks = benchmark_prompts(category, replies)
    alone, _ = seconds(lambda: accept(replies, category, ()))
    taken, fates = seconds(lambda: accept(replies, category, benchmarks))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    few = [read_pair(c.reply).unsafe for c in replies[: args.naive]]
    ours, by_index = seconds(lambda: list(search(few)))
    naive, by_all = seconds(lambda: list(compare_all(few)))
    if by_index != by_all:
        raise SystemExit("the index and the comparison of all with all disagree")
    publish("prompts", [
        row("pairs checked and deduplicated", alone, None, "s", args.pairs),
        row(f"also looked for in {len(benchmarks)} prompts", taken, None, "s", args.pairs),
        row("pairs: peak memory", peak, None, "GiB", args.pairs),
        row("near duplicates alone", ours, naive, "s", args.naive),
    ], fates=fates, near_duplicates=len(by_all))  # fmt: skip


if __name__ == "__main__":
    main()
