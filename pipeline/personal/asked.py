"""For whom a command line draws: ``--profile``, ``--bans``, ``--level`` and ``--strength``."""

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.personal.files import load_space
from pipeline.personal.profiles import BANS_NOTHING, UserProfile, impossible
from pipeline.personal.space import Boundary


@dataclass(frozen=True)
class ForWhom:
    """A person, the adapter that knows how to draw for them, and how strongly it does."""

    adapter: Path
    boundary: Boundary
    strength: float

    def record(self) -> dict[str, object]:
        """All of it that shapes pictures, as plain values."""
        with self.adapter.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        vector = hashlib.sha256(self.boundary.vector.tobytes()).hexdigest()
        return {"adapter": str(self.adapter), "adapter_sha256": digest, "user_vector": vector,
                "banned": sorted(self.boundary.banned), "strength": self.strength}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say for whom is drawn."""
    group = parser.add_argument_group("for one user, inside their boundary (PSA)")
    group.add_argument("--psa", type=Path, metavar="FILE", help="the user adapter; without one of "
                       "the next three everything is banned")  # fmt: skip
    group.add_argument("--profile", help="what the user told, such as age=15,religion=islam; bans "
                       "follow by the rules")  # fmt: skip
    group.add_argument("--bans", help="categories joined by commas, or 'nothing'; for an adult "
                       "where there is no --profile")  # fmt: skip
    group.add_argument("--level", help="L1 (most is allowed) to L5")
    group.add_argument("--strength", type=float, default=1.0, help="of the adapter (default: 1)")


def for_whom(args: argparse.Namespace) -> ForWhom | None:
    """The person of the arguments, None without an adapter.

    Raises InputError, naming the option, for a value that cannot be.
    """
    told = {name: getattr(args, name) for name in ("profile", "bans", "level")}
    if args.psa is None:
        given = [name for name, value in told.items() if value is not None]
        if given or args.strength != 1:
            raise InputError(f"--{(given or ['strength'])[0]} needs --psa, the user adapter")
        return None
    if not 0 <= args.strength < float("inf"):
        raise InputError("--strength must be a number from 0 up")
    profile = None if args.profile is None else parse_profile(args.profile)
    bans = None if args.bans is None else parse_bans(args.bans)
    boundary = load_space(args.psa).resolve(profile, bans, args.level)
    return ForWhom(args.psa, boundary, args.strength)


def parse_profile(text: str) -> UserProfile:
    """A profile of "age=15,religion=islam"; InputError for a field or value that is none."""
    fields = [part.partition("=") for part in text.split(",")]
    told: Mapping[str, str] = {name.strip(): value.strip().lower() for name, _, value in fields}
    try:
        profile = UserProfile.model_validate(told)
    except ValidationError as error:
        faults = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise InputError(f"--profile: {faults}") from None
    if reason := impossible(profile):
        raise InputError(f"--profile: {reason}")
    return profile


def parse_bans(text: str) -> frozenset[str]:
    """Categories of "violence,hate"; none of them for "nothing"."""
    names = frozenset(name.strip() for name in text.split(","))
    return frozenset() if names == {BANS_NOTHING} else names
