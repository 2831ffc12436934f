"""The users of a run: who they are, what they ban, how they are split, and their levels."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError
from pipeline.llm.chat import Engine
from pipeline.personal.bans import ban_by_llm, ban_by_rules, check_bans, with_floor
from pipeline.personal.encoders import Standard
from pipeline.personal.levels import Levels, make_levels, project
from pipeline.personal.profiles import Told, UserProfile
from pipeline.personal.separability import ban_probe, cosine_spread, largest_dimension_share
from pipeline.personal.space import Boundary, EncoderSettings, UserSpace
from pipeline.personal.users import sample_profile, split_users, trained
from pipeline.records import User
from pipeline.seeds import seed_for

ATTRIBUTES = ("gender", "religion", "physical", "mental")


def draw_users(count: int, base_seed: int) -> dict[str, Told]:
    """That many profiles by id, bans untold; user k is the same however many there are."""
    return {
        f"u{k:05d}": (sample_profile(seed_for(base_seed, "user", k)), None) for k in range(count)
    }


@dataclass(frozen=True)
class Population:
    """The users of a run as rows, and what new ones are measured by."""

    rows: list[User]
    space: UserSpace
    levels: Levels
    raw: np.ndarray  # (users, width), as the encoder gives them
    vectors: np.ndarray  # (users, width), standardised


def make_population(
    told: Mapping[str, Told], banned: Mapping[str, frozenset[str]],
    categories: Sequence[str], floor: Collection[str], encoder: EncoderSettings,
    shares: Mapping[str, float], level_count: int, seed: int,
) -> Population:  # fmt: skip
    """Users with their bans, floor included, in splits, vectors and levels.

    Args:
        told: profiles by user id, with what each told of bans.
        banned: what was decided of that, floor and minors' bans included.
        shares: of the splits ``val``, ``test_seen`` and ``test_unseen``.
        level_count: levels are clusters of bans: of the published vectors they were a dial of
            strength alone.
    """
    ids, bans = list(told), [banned[u] for u in told]
    profiles = {u: profile for u, (profile, _) in told.items()}
    loaded = encoder.load(categories)
    raw = loaded.features(list(profiles.values()), bans)
    splits = split_users(ids, **shares)
    known = [k for k, u in enumerate(ids) if trained(splits[u])]
    standard = Standard.fit(raw[known])
    vectors = standard.apply(raw)
    hot = np.array([[c in b for c in categories] for b in bans], np.float32)
    levels = make_levels(hot, bans, count=level_count, seed=seed)
    level_of = {k: level.name for level in levels.levels for k in level.members}
    stands = {level.representative: level.name for level in levels.levels}
    rows = [
        User(
            user_id=u, split=splits[u], age=profiles[u].age,
            **{name: getattr(profiles[u], name) or "" for name in ATTRIBUTES},
            banned="+".join(c for c in categories if c in bans[k]), level=level_of[k],
            stands_for=stands.get(k, ""), vector=vectors[k].tobytes(),
        )
        for k, u in enumerate(ids)
    ]  # fmt: skip
    kept = {level.name: Boundary(bans[level.representative], vectors[level.representative])
            for level in levels.levels}  # fmt: skip
    space = UserSpace(tuple(categories), frozenset(floor), encoder.on_record(loaded), standard,
                      kept)  # fmt: skip
    return Population(rows, space, levels, raw, vectors)


def decide_bans(
    told: Mapping[str, Told], categories: Mapping[str, str], floor: Collection[str],
    base_seed: int, engine: Engine | None = None, max_attempts: int = 1,
) -> tuple[dict[str, frozenset[str]], Counter[str]]:  # fmt: skip
    """What every user bans, floor included: as they told, else by an LLM, else by the rules.

    ``categories`` are definitions by name. Also returns the LLM's failed replies by reason. Raises
    InputError for a told ban that is no category, and as ``pipeline.personal.bans.ban_by_llm``.
    """
    for user_id, (_, banned) in told.items():
        check_bans(banned or (), categories, f"users.profiles: user {user_id}: banned")
    asked = {u: profile for u, (profile, banned) in told.items() if banned is None}
    if engine:
        decided, faults = ban_by_llm(asked, categories, engine, base_seed, max_attempts)
    else:
        decided = {u: ban_by_rules(u, p, categories, base_seed) for u, p in asked.items()}
        faults = Counter()
    return {
        u: with_floor(decided[u] if banned is None else banned, profile, floor, categories)
        for u, (profile, banned) in told.items()
    }, faults


def profile_of(user: User) -> UserProfile:
    """The profile of a row."""
    return UserProfile(age=user.age, **{n: getattr(user, n) or None for n in ATTRIBUTES})


def banned_of(user: User) -> frozenset[str]:
    """The bans of a row."""
    return frozenset(filter(None, user.banned.split("+")))


def boundary_of(user: User) -> Boundary:
    """The boundary of a row."""
    return Boundary(banned_of(user), np.frombuffer(user.vector, np.float32))


def summarize(population: Population) -> dict[str, object]:
    """Counts, levels and how separable the users are, for ``metrics/users.json``."""
    rows, categories = population.rows, population.space.categories
    bans = [banned_of(row) for row in rows]
    counts = Counter(category for banned in bans for category in banned)
    levels = {
        level.name: {"users": len(level.members), "mean_bans": round(level.mean_bans, 3),
                     "representative_bans": level.representative_bans,
                     "ban_shares": {c: round(v, 3) for c, v in level.ban_shares.items()}}
        for level in population.levels.levels
    }  # fmt: skip
    return {
        "users": len(rows), "boundaries": len(set(bans)),
        "splits": dict(sorted(Counter(row.split for row in rows).items())),
        "bans": {c: counts[c] for c in categories}, "levels": levels,
        "separability": {"raw": _separability(population, population.raw),
                         "standardised": _separability(population, population.vectors)},
    }  # fmt: skip


def _separability(population: Population, vectors: np.ndarray) -> dict[str, float]:
    """How far apart users are, and how well their bans can be read out by a linear probe."""
    rows, bans = population.rows, [banned_of(row) for row in population.rows]
    here = [k for k, row in enumerate(rows) if trained(row.split)]
    there = [k for k in range(len(rows)) if k not in set(here)]
    if not there:
        raise InputError("users.splits leave no user to test the ban probe on; raise val")
    probe = ban_probe(
        vectors[here], [bans[k] for k in here], vectors[there], [bans[k] for k in there],
        population.space.categories,
    )  # fmt: skip
    return {
        "cosine": round(cosine_spread(vectors)["mean"], 4),
        "largest_dimension_share": round(largest_dimension_share(vectors), 4),
        "ban_probe_accuracy": round(probe["mean_accuracy"], 4),
        "ban_probe_majority": round(probe["mean_majority"], 4),
    }


def level_plot(population: Population) -> list[dict[str, object]]:
    """Rows of a plot: every user by the two main axes of what is banned, and the level."""
    bans = [banned_of(row) for row in population.rows]
    hot = np.array([[c in b for c in population.space.categories] for b in bans], np.float32)
    return [
        {"x": float(x), "y": float(y), "level": row.level, "bans": len(banned)}
        for (x, y), row, banned in zip(project(hot), population.rows, bans, strict=True)
    ]
