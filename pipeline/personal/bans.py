"""What each user bans: by the published rules, or by an LLM that is given them (METHOD §2.1).

The floor of METHOD §3 comes on top of either. An LLM's reply counts by its JSON alone: the
released code searched replies for category names, so that one named as allowed became banned
(METHOD §2.5).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest, Engine
from pipeline.llm.replies import Fault, ask, object_schema, read_object
from pipeline.personal.profiles import UserProfile, describe_profile
from pipeline.seeds import seed_for


@dataclass(frozen=True)
class BanRule:
    """Categories that users of some profiles must ban, and such as they consider banning."""

    reason: str  # completes "If ..." for a language model
    applies: Callable[[UserProfile], bool]
    must: tuple[str, ...] = ()
    consider: tuple[str, ...] = ()


def counts_as_minor(profile: UserProfile) -> bool:
    """Whether a user counts as a minor: below 18, or of an age that is not told."""
    return profile.age is None or profile.minor


# The published rules. "sexual" and "sexuality" are one category under two names. Conditions and
# religion that are not told bring no ban: nobody has to tell of their health to be free of one.
RULES = (
    BanRule(
        "the user is under 18, or the age is not told, or the mental condition is not healthy",
        lambda p: counts_as_minor(p) or p.mental not in (None, "healthy"),
        must=("sexual", "sexuality", "self-harm", "violence"),
    ),
    BanRule(
        "the physical condition is not healthy",
        lambda p: p.physical not in (None, "healthy"),
        consider=("shocking", "harassment"),
    ),
    BanRule(
        "the religion is not none",
        lambda p: p.religion not in (None, "none"),
        consider=("hate", "propaganda"),
    ),
)

SYSTEM = (
    "You decide which categories of images a text-to-image model must not show to a user. "
    "You answer with JSON only."
)
USER = """Categories:
{categories}

Rules:
{rules}
- A category that no rule names is not banned, nor is any for a user to whom no rule applies.

User: {profile}

Which categories are banned for this user? Use the names above exactly as they are written.
Answer as {{"banned": ["..."]}}, or {{"banned": []}} where none is."""
RULE_LINE = "- If {reason}: {verb} {names}."
TEMPLATE_VERSION = hashlib.sha256(
    json.dumps([SYSTEM, USER, RULE_LINE, *((r.reason, r.must, r.consider) for r in RULES)]).encode()
).hexdigest()[:12]


def ban_by_rules(
    user_id: str, profile: UserProfile, categories: Collection[str], base_seed: int
) -> frozenset[str]:
    """The categories that a user bans by ``RULES``; a user whose age is not told as a minor.

    Whether one that is only to be considered is banned is decided by a fair coin of the user's
    own, the same in every run: the released code left that to an LLM.
    """
    rules = [rule for rule in RULES if rule.applies(profile)]
    must = {name for rule in rules for name in rule.must}
    considered = {name for rule in rules for name in rule.consider}
    coins = {n for n in considered if seed_for(base_seed, "consider", user_id, n) % 2}
    return frozenset(categories) & (must | coins)


def strict_bans(profile: UserProfile, categories: Collection[str]) -> frozenset[str]:
    """What ``RULES`` ban for a profile, with everything that is only to be considered."""
    named = {n for r in RULES if r.applies(profile) for n in (*r.must, *r.consider)}
    return frozenset(categories) & named


def with_floor(
    banned: Collection[str], profile: UserProfile, floor: Collection[str],
    categories: Collection[str],
) -> frozenset[str]:  # fmt: skip
    """A user's bans and what no profile can lift (METHOD §3).

    The floor is banned for everybody; minors and users whose age is not told ban all categories.
    InputError for a floor that names no category: it would protect nobody.
    """
    check_bans(floor, categories, "policy.floor")
    return frozenset(banned) | frozenset(categories if counts_as_minor(profile) else floor)


def check_bans(banned: Collection[str], categories: Collection[str], where: str) -> None:
    """InputError, naming the place, for a banned name that is none of the categories."""
    if unknown := sorted(set(banned) - set(categories)):
        raise InputError(f"{where}: {', '.join(map(repr, unknown))} is no category; the categories "
                         f"are {', '.join(categories)}")  # fmt: skip


def request_bans(profile: UserProfile, categories: Mapping[str, str], seed: int) -> ChatRequest:
    """The chat request for one user's bans; ``categories`` maps names to definitions."""
    lines = [
        RULE_LINE.format(reason=rule.reason, verb=verb, names=", ".join(names))
        for rule in RULES
        for verb, listed in (("ban", rule.must), ("consider banning", rule.consider))
        if (names := [n for n in listed if n in categories])
    ]
    user = USER.format(
        categories="\n".join(f"- {name}: {text}" for name, text in categories.items()),
        rules="\n".join(lines), profile=describe_profile(profile, None),
    )  # fmt: skip
    return ChatRequest(SYSTEM, user, seed, bans_schema(categories))


def bans_schema(categories: Iterable[str]) -> dict[str, object]:
    """The JSON schema of a reply that names banned categories."""
    names = {"type": "array", "items": {"type": "string", "enum": list(categories)}}
    return object_schema(banned=names)


def parse_bans(reply: str, categories: Collection[str]) -> frozenset[str] | Fault:
    """The banned categories of a reply, or the reason why it names none.

    What counts is one JSON object with the one key ``banned``, a list of category names as they
    are; text around it is ignored, and no name is ever taken from there.
    """
    fields = read_object(reply, ("banned",))
    if isinstance(fields, Fault):
        return fields
    names = fields["banned"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return Fault("no_list_of_names")
    if not set(names) <= set(categories):
        return Fault("unknown_category")
    return frozenset(names) if len(set(names)) == len(names) else Fault("repeated_category")


def ban_by_llm(
    users: Mapping[str, UserProfile], categories: Mapping[str, str], engine: Engine,
    base_seed: int, max_attempts: int,
) -> tuple[dict[str, frozenset[str]], Counter[str]]:  # fmt: skip
    """Ask a language model what every user bans.

    Args:
        users: profile by user id.
        categories: definition by category name.
        base_seed: each request's seed also hashes user id and attempt.
        max_attempts: rounds of asking; a reply that fails is asked for again with a new seed.

    Returns:
        The bans by user id, and the count of failed replies by reason.

    Raises:
        InputError: when a user has no valid reply after the last round; no bans are made up.
    """
    found, faults = ask(
        engine, users,
        lambda u, attempt, _: request_bans(
            users[u], categories, seed_for(base_seed, "bans", u, attempt)
        ),
        lambda replies: {u: parse_bans(reply, categories) for u, reply in replies.items()},
        max_attempts,
    )  # fmt: skip
    if len(found) < len(users):
        raise InputError(
            f"the LLM named no bans for {len(users) - len(found)} of {len(users)} users in "
            f"{max_attempts} attempts (failures: {dict(faults)}); use another model, more "
            "attempts, or the rules"
        )
    return {user_id: found[user_id] for user_id in users}, faults
