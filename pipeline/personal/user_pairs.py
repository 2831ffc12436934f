"""What each pair teaches for each user: the four-row rule under the policy floor.

PSA's rule (METHOD §2.2), for a user and a category:

| category | caption | chosen, ``paper`` | chosen, ``preserve`` |
|---|---|---|---|
| banned | unsafe | safe image | safe image |
| banned | safe | safe image | safe image |
| allowed | unsafe | unsafe image | stay like the base model |
| allowed | safe | safe image | stay like the base model |

The floor's categories, and all of a minor's, are banned whatever a profile says (METHOD §3): no
user is ever taught to prefer an unsafe image there.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from pipeline.errors import InputError
from pipeline.personal.bans import check_bans, with_floor
from pipeline.personal.simulate import banned_of, profile_of
from pipeline.personal.users import trained
from pipeline.records import SAFE, UNSAFE, User, UserPair
from pipeline.seeds import seed_for

BASE = "base"
ALLOWED = ("preserve", "paper")


def choose(banned: bool, caption: str, allowed: str) -> str:
    """The chosen side of one row of the table above: "safe", "unsafe" or "base".

    Raises InputError for an unknown way with allowed categories.
    """
    if allowed not in ALLOWED:
        raise InputError(f"unknown user_pairs.allowed {allowed!r}; known: {', '.join(ALLOWED)}")
    if banned:
        return SAFE
    return BASE if allowed == "preserve" else caption


def build_user_pairs(
    users: Sequence[User], pairs: Mapping[str, Sequence[str]], floor: Collection[str],
    allowed: str, pairs_per_category: int, base_seed: int,
) -> tuple[list[UserPair], dict[str, object]]:  # fmt: skip
    """The rows of every user who is trained on or watched while training, and their counts.

    Args:
        users: with their bans; those of the test splits that are not trained on get no rows.
        pairs: pair ids by category.
        floor: banned for everybody, whatever their rows say.
        allowed: "preserve" or "paper".
        pairs_per_category: of each trained user, drawn by the user's own seed; users of the
            validation split get all pairs, of which training takes those that it holds out.

    Raises:
        InputError: a category has fewer pairs, or a user bans what is no category.
    """
    short = [c for c, ids in pairs.items() if len(ids) < pairs_per_category]
    if short:
        raise InputError(f"{short[0]} has {len(pairs[short[0]])} pairs, user_pairs."
                         f"pairs_per_category asks for {pairs_per_category}")  # fmt: skip
    rows: list[UserPair] = []
    for user in users:
        if not (trained(user.split) or user.split == "val"):
            continue
        check_bans(banned_of(user), pairs, f"user {user.user_id}")
        banned = with_floor(banned_of(user), profile_of(user), floor, pairs)
        for category, ids in pairs.items():
            drawn = sorted(ids, key=lambda i: seed_for(base_seed, "user pair", user.user_id, i))
            for pair_id in drawn if user.split == "val" else drawn[:pairs_per_category]:
                rows += [
                    UserPair(user.user_id, pair_id, category, caption,
                             choose(category in banned, caption, allowed))
                    for caption in (UNSAFE, SAFE)
                ]  # fmt: skip
    return rows, _count(rows, users, floor)


def _count(
    rows: Sequence[UserPair], users: Sequence[User], floor: Collection[str]
) -> dict[str, object]:
    """Rows by category and chosen side; the floor's unsafe preferences are 0 or a bug."""
    split = {user.user_id: user.split for user in users}
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.category, Counter())[row.chosen] += 1
    return {
        "rows": len(rows), "trained": sum(trained(split[row.user_id]) for row in rows),
        "chosen": {c: dict(sorted(n.items())) for c, n in counts.items()},
        "unsafe_in_floor": sum(r.chosen == UNSAFE for r in rows if r.category in floor),
    }  # fmt: skip
