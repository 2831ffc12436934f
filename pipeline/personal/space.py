"""What it takes to turn a person into what the adapter reads: categories, floor, encoder, levels.

Made once of the simulated users, then kept in the adapter's file, so that whoever has the file can
ask it for pictures.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.errors import InputError
from pipeline.personal.bans import check_bans, strict_bans, with_floor
from pipeline.personal.encoders import ProfileEncoder, Standard, load_encoder
from pipeline.personal.profiles import UserProfile
from pipeline.records import User


@dataclass(frozen=True)
class EncoderSettings:
    """Which profile encoder; see ``pipeline.personal.encoders``."""

    name: str = "structured"
    model: str | None = None
    revision: str | None = None
    weights: str | None = None  # what identifies a model's, once it was loaded

    def load(self, categories: Sequence[str]) -> ProfileEncoder:
        """The encoder; InputError where its weights are not those on record."""
        found = load_encoder(self.name, categories=categories, model=self.model,
                             revision=self.revision, batch=8)  # fmt: skip
        if self.weights not in (None, weights := found.describe().get("weights")):
            raise InputError(f"the profile encoder's model {self.model!r} has the weights {weights}"
                             f", the users' vectors were made with {self.weights}; run `dvc repro "
                             "train_psa`")  # fmt: skip
        return found

    def on_record(self, loaded: ProfileEncoder) -> "EncoderSettings":
        """The settings with the weights that were loaded."""
        return replace(self, weights=loaded.describe().get("weights"))


@dataclass(frozen=True)
class Boundary:
    """A person's bans, floor included, and vector (width,) float32."""

    banned: frozenset[str]
    vector: np.ndarray


@dataclass(frozen=True)
class UserSpace:
    """Categories in the order of the adapter's gates, and how a profile becomes a vector.

    ``levels`` are the bans and vectors of the users that stand for L1, L2, ...
    """

    categories: tuple[str, ...]
    floor: frozenset[str]
    encoder: EncoderSettings
    standard: Standard
    levels: dict[str, Boundary]

    @property
    def width(self) -> int:
        """Of the users' vectors."""
        return len(self.standard.mean)

    @cached_property
    def _loaded(self) -> ProfileEncoder:
        return self.encoder.load(self.categories)

    def boundary(self, profile: UserProfile, banned: Collection[str] | None = None) -> Boundary:
        """A person's boundary: what they ban, and what no profile can lift (METHOD §3).

        Bans that are not told follow from the profile, with everything that the rules only
        consider. Raises InputError for a ban that is no category.
        """
        if banned is None:
            banned = strict_bans(profile, self.categories)
        check_bans(banned, self.categories, "bans")
        whole = with_floor(banned, profile, self.floor, self.categories)
        return Boundary(whole, self._vector(profile, whole))

    def only(self, banned: Collection[str]) -> Boundary:
        """The boundary of an adult who bans just this, and of whom nothing else is known."""
        check_bans(banned, self.categories, "bans")
        whole = frozenset(banned) | self.floor
        return Boundary(whole, self._vector(UserProfile(), whole))

    def _vector(self, profile: UserProfile, banned: frozenset[str]) -> np.ndarray:
        raw = self._loaded.features([profile], [banned])
        if raw.shape[1] != self.width:
            raise InputError(f"the profile encoder {self.encoder.name!r} gives {raw.shape[1]} "
                             f"numbers, the adapter was trained on {self.width}")  # fmt: skip
        return self.standard.apply(raw)[0]

    def check_users(self, users: Sequence[User]) -> None:
        """InputError, naming the user, for a vector of another width: another encoder's."""
        for user in users:
            if len(user.vector) != self.width * np.float32().nbytes:
                raise InputError(f"data/users: user {user.user_id} has a vector of "
                                 f"{len(user.vector)} bytes, those of this adapter have "
                                 f"{self.width} numbers; run `dvc repro train_psa`")  # fmt: skip

    def level(self, name: str) -> Boundary:
        """The boundary of the user who stands for a level; InputError for an unknown one."""
        if name not in self.levels:
            raise InputError(f"unknown level {name!r}; known: {', '.join(self.levels)}")
        return self.levels[name]

    def resolve(
        self, profile: UserProfile | None = None, bans: Collection[str] | None = None,
        level: str | None = None,
    ) -> Boundary:  # fmt: skip
        """The boundary of whatever is told of a person; of nobody known, the strictest.

        Args:
            profile: whose bans follow from the rules unless they are given.
            bans: category names. Without a profile the caller vouches for an adult; the floor is
                banned all the same.
            level: "L1", ..., and nothing else.

        Raises InputError for a level beside others, or one or a ban that does not exist.
        """
        if level is not None:
            if profile is not None or bans is not None:
                raise InputError("give a level, or a profile and bans, not both")
            return self.level(level)
        if profile is not None:
            return self.boundary(profile, bans)
        return self.strictest if bans is None else self.only(bans)

    @property
    def strictest(self) -> Boundary:
        """For somebody of whom nothing is known: everything is banned."""
        return self.boundary(UserProfile(), self.categories)

    def one_hot(self, boundaries: Sequence[Boundary]) -> np.ndarray:
        """Bans as (n, categories) float32."""
        return np.array([[c in b.banned for c in self.categories] for b in boundaries], np.float32)

    def header(self) -> dict[str, object]:
        """All of it but arrays, as JSON values."""
        return {
            "categories": list(self.categories), "floor": sorted(self.floor),
            "encoder": {k: v for k, v in asdict(self.encoder).items() if k != "weights" or v},
            "levels": {name: sorted(b.banned) for name, b in self.levels.items()},
        }  # fmt: skip

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name."""
        found = {"space.mean": self.standard.mean, "space.std": self.standard.std}
        return found | {f"space.level.{name}": b.vector for name, b in self.levels.items()}

    @classmethod
    def of(cls, header: dict, arrays: dict[str, np.ndarray]) -> "UserSpace":
        """From ``header`` and ``arrays``; KeyError when something is missing."""
        levels = {
            name: Boundary(frozenset(banned), arrays[f"space.level.{name}"])
            for name, banned in header["levels"].items()
        }
        return cls(
            tuple(header["categories"]), frozenset(header["floor"]),
            EncoderSettings(**header["encoder"]),
            Standard(arrays["space.mean"], arrays["space.std"]), levels,
        )  # fmt: skip
