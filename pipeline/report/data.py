"""What a report is made of: everything that its stage has read, as plain values."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError
from pipeline.records import BENIGN, UNSAFE, BenchmarkImage

BASE = "base"  # the model that all others are compared with
PSA = "psa"  # the user adapter, among the methods that show people pictures
Estimate = Mapping[str, float]  # "value", "low", "high", "n"
Metrics = Mapping[str, Mapping[str, Estimate]]  # benchmark -> metric -> estimate
Comparison = Mapping[str, float | bool | None]
# reference model -> model -> "<benchmark>/<metric>" -> comparison
Comparisons = Mapping[str, Mapping[str, Mapping[str, Comparison]]]


@dataclass(frozen=True)
class Personal:
    """What people of different boundaries are shown.

    Attributes:
        categories: in the order of the adapter's gates.
        floor: what is banned for everybody.
        by_bans: whether the adapter's pictures depend on nothing about a person but the bans.
        methods: method to split of users to its metrics: the adapter, base, the model that ships,
            and baselines.
        control: ``metrics/psa_control.json``.
        users: ``metrics/users.json``.
        images: ``BASE``, or a level, to the images of the prompts that the page shows.
        verdicts: image id to whether the rule calls it inappropriate.
    """

    categories: Sequence[str]
    floor: Collection[str]
    by_bans: bool
    methods: Mapping[str, Metrics]
    control: Mapping[str, Mapping]
    users: Mapping[str, object]
    images: Mapping[str, Sequence[BenchmarkImage]]
    verdicts: Mapping[str, bool]


@dataclass(frozen=True)
class ReportData:
    """The contents of a report.

    Attributes:
        rule: name of the rule behind ``ip``.
        shipped: name of the model that ships.
        benchmarks: name to kind: "unsafe", "adversarial" or "benign"; the first unsafe one is
            the main one.
        evaluations: model to its metrics.
        comparisons: paired tests against base and against the shipped model; a comparison has
            ``difference``, ``low``, ``high``, ``n``, ``p`` (Holm-corrected), ``detectable`` (the
            smallest difference that ``n`` shows with 80 % power) and ``better``: whether the
            model is significantly better or worse than the reference, None when neither.
        pairs: category to ``metrics/pairs/<c>.json``.
        merge: ``metrics/merge.json``.
        expert_map: the figure of layers and experts, an SVG file.
        training: category, or "joint", to the rows of its step metrics.
        images: model to its benchmark images.
        verdicts: image id to whether the rule calls it inappropriate.
        blocked: ids of the hard-blocked among all judged images; ``images`` has none of them.
        rows: prompts of each benchmark that the page shows images of.
        provenance: label to value, in order.
        side_effects: ``metrics/side_effects.json``: model to word of benign prompts to how their
            CLIPScore compares with base's; ``changed`` is whether it differs beyond chance.
        times: stage to the seconds of its instances' last runs, where they were recorded.
        expert_matrix: expert to category to the estimate of its IP, where it was measured.
        dials: model to the rows of its strength dial, where they were measured.
        data_curve, merge_curve: rows of the scaling curves as stored, where they were measured.
        personal: what people of different boundaries are shown, where there is a user adapter.
    """

    rule: str
    shipped: str
    benchmarks: Mapping[str, str]
    evaluations: Mapping[str, Metrics]
    comparisons: Comparisons
    pairs: Mapping[str, Mapping]
    merge: Mapping[str, object]
    expert_map: Path
    training: Mapping[str, Sequence[Mapping[str, float]]]
    images: Mapping[str, Sequence[BenchmarkImage]]
    verdicts: Mapping[str, bool]
    blocked: Collection[str]
    rows: int
    provenance: Mapping[str, str]
    side_effects: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)
    times: Mapping[str, Sequence[float]] = field(default_factory=dict)
    expert_matrix: Mapping[str, Mapping[str, Estimate]] | None = None
    dials: Mapping[str, Sequence[Mapping[str, float]]] | None = None
    data_curve: Sequence[Mapping[str, str]] = ()
    merge_curve: Sequence[Mapping[str, str]] = ()
    personal: Personal | None = None

    def __post_init__(self):
        for model in (BASE, self.shipped):
            if model not in self.evaluations:
                raise InputError(
                    f"a report needs the evaluation of {model!r} and has those of "
                    f"{', '.join(self.evaluations) or 'no model'}; add it to variants"
                )
        for method in (PSA, BASE, self.shipped) if self.personal else ():
            if method not in self.personal.methods:
                raise InputError(f"what people are shown was not measured by {method!r}; run "
                                 "`dvc repro evaluate_psa`")  # fmt: skip

    def models(self) -> list[str]:
        """All models: base, the one that ships, and the others in their order."""
        return list(dict.fromkeys((BASE, self.shipped, *self.evaluations)))

    def of_kind(self, *kinds: str) -> list[str]:
        """The benchmarks of some kinds."""
        return [name for name, kind in self.benchmarks.items() if kind in kinds]

    def comparison(
        self, reference: str, model: str, benchmark: str, metric: str
    ) -> Comparison | None:
        """What a paired test says of a model against a reference, None where there is none."""
        return self.comparisons.get(reference, {}).get(model, {}).get(f"{benchmark}/{metric}")

    def main_unsafe(self) -> str | None:
        """The benchmark whose IP is the safety that the page is about."""
        return next(iter(self.of_kind(UNSAFE)), None)

    def benign(self) -> list[str]:
        """The benchmarks that say what safety costs."""
        return self.of_kind(BENIGN)
