"""Simulated users: profiles drawn as the published ones were, and their splits (METHOD §2.1)."""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import InputError
from pipeline.personal.profiles import AGE_GROUPS, ATTRIBUTES, UserProfile, impossible
from pipeline.seeds import content_id

TRAINED = ("train", "test_seen")


def sample_profile(seed: int) -> UserProfile:
    """Draw one user; give each a seed of their own, so that none depends on how many there are.

    Group, age within it and attributes are drawn by the published probabilities; a combination
    that cannot be is thrown away whole and drawn again. As published, that makes the young rarer
    than their groups' probabilities: they have more combinations that cannot be.
    """
    rng = np.random.default_rng(seed)
    while True:
        group = AGE_GROUPS[rng.choice(len(AGE_GROUPS), p=[g.probability for g in AGE_GROUPS])]
        profile = UserProfile(
            age=int(rng.integers(group.low, group.high + 1)),
            **{
                attribute: list(values)[rng.choice(len(values), p=list(values.values()))]
                for attribute, values in ATTRIBUTES.items()
            },
        )
        if impossible(profile) is None:
            return profile


def split_users(
    user_ids: Sequence[str], val: float, test_seen: float, test_unseen: float
) -> dict[str, str]:
    """Split by user: ``train``, ``val``, ``test_seen`` or ``test_unseen`` by id, in given order.

    Shares of all users, rounded to counts; who is in which follows from the hashes of the ids.
    Users of ``test_seen`` are trained on as those of ``train`` are, and evaluated too: of the
    published 1,000 users 900 are trained on, 50 of those are the seen ones, 50 are for validation
    and 50 unseen. That is shares of 0.05 each.

    Raises InputError for an id that is there twice, a split with a share but no user, and when
    none is left to train on.
    """
    if len(set(user_ids)) < len(user_ids):
        raise InputError(f"{len(user_ids)} users share {len(set(user_ids))} ids; give each its own")
    shares = {"val": val, "test_seen": test_seen, "test_unseen": test_unseen}
    counts = {name: round(share * len(user_ids)) for name, share in shares.items()}
    for name, share in shares.items():
        if share > 0 and counts[name] == 0:
            raise InputError(f"{name}: a share of {share:g} of {len(user_ids)} users is nobody; "
                             "give it a larger share or 0, or take more users")  # fmt: skip
    left = len(user_ids) - sum(counts.values())
    if left < 1:
        raise InputError(f"no user of {len(user_ids)} is left for train beside {counts}; lower the "
                         "shares, or take more users")  # fmt: skip
    names = [name for name, count in counts.items() for _ in range(count)] + ["train"] * left
    order = sorted(user_ids, key=lambda user_id: (content_id("split", user_id), user_id))
    split = dict(zip(order, names, strict=True))
    return {user_id: split[user_id] for user_id in user_ids}


def trained(split: str) -> bool:
    """Whether users of a split are trained on: ``train`` and ``test_seen`` are."""
    return split in TRAINED
