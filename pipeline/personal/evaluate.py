"""What users are shown, measured: the adapter beside the base model and what else there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluate.judged import Judged
from pipeline.evaluate.metrics import Estimate
from pipeline.personal.judge import Case, PersonalJudge, ScoreJudge, pass_rate, win_rate
from pipeline.personal.measure import Metrics, Viewer, control_matrix, leakage, measure_viewers
from pipeline.personal.profiles import describe_profile
from pipeline.personal.scored import Shown
from pipeline.personal.shown import PSA, evaluated, probes
from pipeline.personal.simulate import ATTRIBUTES, boundary_of, profile_of
from pipeline.personal.space import UserSpace
from pipeline.records import BenchmarkPrompt, EncodedImage, User

BASE = "base"
Stored = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Yardstick:
    """What all methods are measured by."""

    base: Judged  # of the shown prompts alone
    space: UserSpace
    rule: str
    judge: PersonalJudge
    prompts: Mapping[tuple[str, int], str]  # text by benchmark and row
    resamples: int
    seed: int
    pictures: Mapping[str, EncodedImage]  # by image id, for a judge that looks

    def measure(self, viewers: Sequence[Viewer]) -> Metrics:
        """Every metric of a method over some users."""
        return measure_viewers(viewers, self.base, self.space.categories, self.space.floor,
                               self.rule, self.resamples, self.seed)  # fmt: skip

    def cases(self, users: Sequence[User], seen: Sequence[Judged]) -> list[Case]:
        """A method's pictures of the unsafe and benign prompts for a judge of people's wishes."""
        return [
            Case(user.user_id, describe_profile(profile_of(user), None), boundary_of(user).banned,
                 self.prompts[row.benchmark, row.row], row, self.pictures.get(row.image_id))
            for user, judged in zip(users, seen, strict=True)
            for row in judged.select(self.base.index)
        ]  # fmt: skip


def make_yardstick(
    base: Judged, space: UserSpace, rule: str, prompts: Sequence[BenchmarkPrompt], resamples: int,
    seed: int, judge: PersonalJudge | None = None,
    pictures: Mapping[str, EncodedImage] | None = None,
) -> Yardstick:  # fmt: skip
    """What all methods are measured by, with the judge that goes by scores unless given another.

    ``prompts`` are those that people are shown; of ``base`` other images are left out. A judge that
    looks needs ``pictures`` by image id.
    """
    keys = sorted((p.benchmark, p.row, 0) for p in prompts)
    texts = {(p.benchmark, p.row): p.prompt for p in prompts}
    return Yardstick(Judged(base.select(keys)), space, rule, judge or ScoreJudge(rule), texts,
                     resamples, seed, pictures or {})  # fmt: skip


def same_for_all(models: Mapping[str, Judged], yardstick: Yardstick) -> dict[str, Judged]:
    """Models that show everybody the same: their images of the prompts that people are shown."""
    return {name: Judged(judged.select(yardstick.base.index)) for name, judged in models.items()}


def viewers_of(users: Sequence[User], seen: Sequence[Judged]) -> list[Viewer]:
    """Users with what a method shows them."""
    return [
        Viewer(user.user_id, user.split, boundary_of(user).banned, _attributes(user), judged)
        for user, judged in zip(users, seen, strict=True)
    ]


def _attributes(user: User) -> dict[str, str]:
    """What fairness is measured over; "" is "not told"."""
    group = profile_of(user).age_group or ""
    return {name: getattr(user, name) for name in ATTRIBUTES} | {"age_group": group}


def evaluate_methods(
    users: Sequence[User], personal: Mapping[str, Shown], fixed: Mapping[str, Judged],
    yardstick: Yardstick,
) -> dict[str, dict[str, Stored]]:  # fmt: skip
    """``{method: {split: {metric: estimate}}}`` for the evaluated users.

    Args:
        personal: methods that show users different pictures.
        fixed: methods that show everybody the same.

    Beside ``measure_viewers``'s metrics ``pass_rate``, and for the others than the adapter
    ``psa_wins``, ``psa_ties`` and ``psa_losses``: how a blind judge compares the adapter's
    pictures with theirs. Raises InputError as ``pipeline.personal.measure.measure_viewers``.
    """
    found: dict[str, dict[str, Stored]] = {}
    for split in sorted({user.split for user in evaluated(users)}):
        people = [user for user in users if user.split == split]
        seen = {
            name: [shown.to(boundary_of(u)) for u in people] for name, shown in personal.items()
        }
        seen |= {name: [judged] * len(people) for name, judged in fixed.items()}
        cases = {name: yardstick.cases(people, some) for name, some in seen.items()}
        for name, some in seen.items():
            metrics = yardstick.measure(viewers_of(people, some))
            look = yardstick.judge, yardstick.resamples, yardstick.seed
            metrics["pass_rate"] = pass_rate(cases[name], *look)
            if name != PSA:
                against = win_rate(cases[PSA], cases[name], *look)
                metrics |= {f"psa_{k}": v for k, v in against.items()}
            found.setdefault(name, {})[split] = _stored(metrics)
    return found


def evaluate_control(psa: Shown, yardstick: Yardstick) -> dict[str, object]:
    """What banning one category alone does to each, and what the levels do.

    ``{"matrix": {banned: {category: {metric: estimate}}}, "leakage": estimate, "levels": {level:
    {metric: estimate}}}``.
    """
    space, y = yardstick.space, yardstick
    seen = {category: psa.to(boundary) for category, boundary in probes(space).items()}
    matrix = control_matrix(seen, y.base, space.categories, y.rule, y.resamples, y.seed)
    lost = leakage(seen, y.base, space.categories, space.floor, y.resamples, y.seed)
    levels = {
        name: {"banned": sorted(boundary.banned)}
        | _stored(y.measure([Viewer(name, "", boundary.banned, {}, psa.to(boundary))]))
        for name, boundary in space.levels.items()
    }
    stored = {a: {b: _stored(m) for b, m in row.items()} for a, row in matrix.items()}
    return {"matrix": stored, "levels": levels} | _stored({"leakage": lost} if lost else {})


def _stored(metrics: Mapping[str, Estimate]) -> Stored:
    return {name: estimate.as_dict() for name, estimate in sorted(metrics.items())}
