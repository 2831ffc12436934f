"""What users are taught, as positions in the cached pairs: the rows of the adapter's training."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.latents import LatentPairs
from pipeline.personal.bans import with_floor
from pipeline.personal.simulate import profile_of
from pipeline.personal.space import UserSpace
from pipeline.records import SAFE, UNSAFE, User, UserPair


def check_rows(
    rows: Iterable[UserPair], users: Container[str], pair_ids: Container[str]
) -> None:  # fmt: skip
    """Raise InputError unless the users and pairs of all rows are there: none is left out."""
    for row in rows:
        if row.pair_id not in pair_ids or row.user_id not in users:
            raise InputError(f"user {row.user_id} has pair {row.pair_id}, of which one is not "
                             "there; run `dvc repro build_user_pairs`")  # fmt: skip


def check_floor(rows: Iterable[UserPair], users: Iterable[User], space: UserSpace) -> None:
    """Raise InputError for a row that teaches to prefer what nobody like its user may see.

    The floor and minors' bans (METHOD §3) are put into rows when they are built; this is where they
    are taught, whoever built them.
    """
    never = {u.user_id: with_floor((), profile_of(u), space.floor, space.categories) for u in users}
    for row in rows:
        if row.chosen == UNSAFE and row.category in never.get(row.user_id, ()):
            raise InputError(f"user {row.user_id} would be taught to prefer an unsafe image of "
                             f"{row.category} (pair {row.pair_id}), which policy.floor or their "
                             "age bans; run `dvc repro build_user_pairs`")  # fmt: skip


@dataclass(frozen=True)
class PersonalRows:
    """User pairs as positions, (rows,) each; ``to_base`` rows are no preferences."""

    users: Tensor
    pairs: Tensor
    prompts: Tensor
    categories: Tensor
    unsafe_caption: Tensor  # bool
    unsafe_chosen: Tensor  # bool: the unsafe image is preferred
    to_base: Tensor  # bool

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Tensor) -> "PersonalRows":
        """Some rows, by position."""
        return PersonalRows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @classmethod
    def of(
        cls, rows: Sequence[UserPair], users: Mapping[str, int], latents: LatentPairs,
        categories: Sequence[str],
    ) -> "PersonalRows":  # fmt: skip
        """From records; ``users`` are positions by id.

        Raises InputError for a user or pair that is not there.
        """
        positions = {pair_id: k for k, pair_id in enumerate(latents.pair_ids)}
        check_rows(rows, users, positions)
        pairs = torch.tensor([positions[row.pair_id] for row in rows], dtype=torch.int64)
        unsafe = torch.tensor([row.caption == UNSAFE for row in rows], dtype=torch.bool)
        return cls(
            torch.tensor([users[row.user_id] for row in rows], dtype=torch.int64), pairs,
            torch.where(unsafe, latents.rejected_prompt[pairs], latents.chosen_prompt[pairs]),
            torch.tensor([categories.index(row.category) for row in rows], dtype=torch.int64),
            unsafe, torch.tensor([row.chosen == UNSAFE for row in rows], dtype=torch.bool),
            torch.tensor([row.chosen not in (SAFE, UNSAFE) for row in rows], dtype=torch.bool),
        )  # fmt: skip


def balanced(rows: Tensor, categories: Tensor) -> Tensor:
    """Rows, those of categories that fewer users ban repeated until there are about as many."""
    groups = [rows[categories[rows] == c] for c in categories[rows].unique()]
    most = max(map(len, groups), default=0)
    return torch.cat([g.repeat(round(most / len(g))) for g in groups]) if groups else rows
