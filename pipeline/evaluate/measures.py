"""What every metric is called, which way is better, its digits and its meaning: pure data.

Metrics are named as in ``metrics/evaluation/<m>.json``: ``ip`` over a whole benchmark,
``ip/<category>`` over one category of it, ``ip@<rule>`` by another rule than the project's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.records import ADVERSARIAL, BENIGN, UNSAFE

Results = Mapping[str, Mapping[str, object]]  # benchmark -> metric -> anything


@dataclass(frozen=True)
class Measure:
    """How a metric is shown."""

    title: str
    better: str  # "lower", "higher", or "" where neither is
    digits: int
    meaning: str
    headline: tuple[str, ...] = ()  # the kinds of benchmarks that it stands for in short tables
    from_base: bool = False  # measured against the base model's images of the same seeds


# in the order of tables
MEASURES = {
    "ip": Measure("IP", "lower", 3, "inappropriate probability, the share of images that the rule "
                  "calls inappropriate; by category where a benchmark has categories",
                  (UNSAFE, BENIGN)),
    "asr": Measure("ASR", "lower", 3, "attack success rate, of the adversarial prompts whose image "
                   "by the base model the rule calls inappropriate the share whose image by this "
                   "model, from the same seed, is too", (ADVERSARIAL,), from_base=True),
    "clip_score": Measure("CLIPScore", "higher", 2, "mean of 100 times the cosine of image and "
                          "prompt in CLIP; on unsafe prompts it falls as they are not followed",
                          (BENIGN,)),
    "drawn": Measure("drawn", "higher", 3, "share of images that show the benign thing asked for, "
                     "nearer in CLIP to their prompt than to the prompt without it", (BENIGN,)),
    "over_block": Measure("over-block", "lower", 3, "of the images in which the base model drew "
                          "what was asked, the share in which this model, from the same seed, "
                          "did not", from_base=True),
    "cmmd": Measure("CMMD", "lower", 3, "distance to the base model's images of the same seeds, in "
                    "CLIP; for the base model to its own images of other seeds, the smallest and "
                    "largest of them in place of an interval", (BENIGN,), from_base=True),
    "drift": Measure("drift", "lower", 3, "mean distance in CLIP of an image to the base model's "
                     "of the same prompt and seed", from_base=True),
    "cmmd_references": Measure("CMMD to references", "lower", 3, "distance to the benchmark's own "
                               "reference pictures, in CLIP"),
    "fid": Measure("FID", "lower", 2, "Fréchet distance to the reference pictures, in Inception's "
                   "features", (BENIGN,)),
    "kid": Measure("KID", "lower", 4, "kernel distance to the reference pictures, in Inception's "
                   "features"),
}  # fmt: skip
QUALITY = MEASURES.keys() - {"ip", "asr"}  # how well prompts are followed, and what images are like

BENCHMARKS = {"heldout": "unseen concepts", "seen": "seen concepts", "lookalike": "look-alikes"}


def benchmark_title(name: str) -> str:
    """A benchmark in words; its own name where it has no others."""
    return BENCHMARKS.get(name, name.replace("_", " "))


def split(metric: str) -> tuple[str, str, str]:
    """A metric's kind, category and rule; the last two are "" where it has none."""
    name, _, category = metric.partition("/")
    kind, _, rule = name.partition("@")
    return kind, category, rule


def measure(metric: str, known: Mapping[str, Measure] = MEASURES) -> Measure:
    """How a metric is shown; one that the table does not know, by its own name."""
    kind, _, _ = split(metric)
    return known.get(kind, Measure(kind, "", 3, ""))


def is_judged(metric: str, kind: str) -> bool:
    """Whether better and worse mean something on such a benchmark.

    Quality is meant to change where prompts are unsafe: they are not to be followed.
    """
    return kind == BENIGN or split(metric)[0] not in QUALITY


def title(metric: str, benchmark: str = "") -> str:
    """A metric in words: "IP", "IP, violence", "IP by q16_argmax", "IP, unseen concepts"."""
    _, category, rule = split(metric)
    words = measure(metric).title + (f" by {rule}" if rule else "")
    return ", ".join(filter(None, (words, category, benchmark and benchmark_title(benchmark))))


def show(metric: str, value: float) -> str:
    """A value with its metric's digits."""
    return f"{value:.{measure(metric).digits}f}"


def show_interval(metric: str, estimate: Mapping[str, float]) -> str:
    """The bounds of an estimate."""
    return f"{show(metric, estimate['low'])}–{show(metric, estimate['high'])}"


def show_size(metric: str, value: float) -> str:
    """A difference without its sign: the metric's digits, or two that count where these are 0."""
    size = show(metric, abs(value))
    return f"{abs(value):.2g}" if value and not float(size) else size


def show_difference(metric: str, value: float) -> str:
    """A difference with its sign."""
    return ("+" if value > 0 else "−" if value < 0 else "") + show_size(metric, value)


def in_order(metrics: Iterable[str]) -> list[str]:
    """Metrics in the order of ``MEASURES``, each with its rules and categories; others last."""
    order = list(MEASURES)

    def place(metric: str) -> tuple[int, str, str, str]:
        kind, category, rule = split(metric)
        return (order.index(kind) if kind in order else len(order), kind, rule, category)

    return sorted(metrics, key=place)


def measures_of(models: Iterable[Results]) -> list[Measure]:
    """How everything that was measured is shown, once each, in order."""
    names = {name for results in models for metrics in results.values() for name in metrics}
    return list(dict.fromkeys(measure(name) for name in in_order(names)))


def headline(kinds: Mapping[str, str], models: Iterable[Results]) -> list[tuple[str, str]]:
    """Benchmark and metric of a short table's columns: what stands for each kind of benchmark.

    ``kinds`` is benchmark to kind. Metrics that no model has are left out; a benchmark that has
    none of those that stand for its kind is shown by the first that it has.
    """
    models = list(models)
    columns = []
    for benchmark, kind in kinds.items():
        names = in_order({n for results in models for n in results.get(benchmark, {})})
        whole = [n for n in names if not any(split(n)[1:])]
        chosen = [n for n in whole if kind in measure(n).headline] or whole[:1]
        columns += [(benchmark, name) for name in chosen]
    return columns
