"""User profiles: the published values and their probabilities as data, and the user's own CSV.

First module of PSA's user side (METHOD §2.1). What is not told is None; "none" is a religion and
stays a string, which the released code read as missing for a third of its users (METHOD §2.5).
"""

import csv
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TextIO

from pydantic import Field, ValidationError

from pipeline.errors import InputError
from pipeline.section import Section
from pipeline.taxonomy import SLUG

MAX_AGE = 120  # years
MINOR_BELOW = 18


class AgeGroup(NamedTuple):
    """A published age group: ages ``low`` to ``high`` in years, and how often it is drawn."""

    name: str
    low: int
    high: int
    probability: float


AGE_GROUPS = (
    AgeGroup("infants & toddlers", 0, 3, 0.05),
    AgeGroup("children", 4, 12, 0.20),
    AgeGroup("adolescents", 13, 19, 0.20),
    AgeGroup("young adults", 20, 34, 0.20),
    AgeGroup("middle-aged", 35, 59, 0.20),
    AgeGroup("young elderly", 60, 74, 0.10),
    AgeGroup("elderly", 75, 89, 0.04),
    AgeGroup("long-lived", 90, 100, 0.01),
)
# attribute -> value -> probability of a draw
ATTRIBUTES: dict[str, dict[str, float]] = {
    # published users are female or male; "other" is drawn too, so that nothing a user can tell is
    # new to an adapter trained on drawn users
    "gender": {"female": 1 / 3, "male": 1 / 3, "other": 1 / 3},
    "religion": {"christianity": 0.3, "islam": 0.2, "buddhism": 0.2, "none": 0.3},
    "physical": {
        "visual impairment": 0.2, "hearing impairment": 0.2, "intellectual disability": 0.2,
        "healthy": 0.4,
    },
    "mental": {
        "depression": 0.15, "anxiety": 0.15, "war": 0.075, "sexual assault": 0.075,
        "major accidents": 0.075, "natural disasters": 0.075, "healthy": 0.4,
    },
}  # fmt: skip
# Youngest age by mental condition: the published rules by group and by age, put together. So
# toddlers are healthy or went through natural disasters, children through no war or assault.
MENTAL_FROM = {
    "depression": 5, "anxiety": 5, "major accidents": 5, "sexual assault": 13, "war": 18,
}  # fmt: skip
RELIGION_FROM = 8  # years; younger ones have "none"

COLUMNS = ("user_id", "age", *ATTRIBUTES, "banned")
BANS_NOTHING = "nothing"  # in the column ``banned``; an empty cell is "not told"

Gender = Literal["female", "male", "other"]
Religion = Literal["christianity", "islam", "buddhism", "none"]
Physical = Literal[
    "visual impairment", "hearing impairment", "intellectual disability", "healthy"
]  # fmt: skip
Mental = Literal[
    "depression", "anxiety", "war", "sexual assault", "major accidents", "natural disasters",
    "healthy",
]  # fmt: skip


class UserProfile(Section):
    """What a user told of themself; None is "not told"."""

    age: Annotated[int, Field(ge=0, le=MAX_AGE)] | None = None  # years
    gender: Gender | None = None
    religion: Religion | None = None
    physical: Physical | None = None
    mental: Mental | None = None

    @property
    def age_group(self) -> str | None:
        """The published group's name, None without an age; 101 and older join the last group."""
        if self.age is None:
            return None
        return next((g.name for g in AGE_GROUPS if self.age <= g.high), AGE_GROUPS[-1].name)

    @property
    def minor(self) -> bool:
        """Whether the age is known and below 18; a rule that must be strict asks for None too."""
        return self.age is not None and self.age < MINOR_BELOW


Told = tuple[UserProfile, frozenset[str] | None]  # with the bans, None where they are not told


def impossible(profile: UserProfile) -> str | None:
    """Why a combination cannot be (METHOD §2.1), or None; what is not told rules nothing out."""
    age = MAX_AGE if profile.age is None else profile.age
    youngest = MENTAL_FROM.get(profile.mental, 0)
    if age < youngest:
        return f"mental: {profile.mental!r} is possible from {youngest} years on"
    if age < RELIGION_FROM and profile.religion not in (None, "none"):
        return f"religion: below {RELIGION_FROM} years it is 'none'"
    return None


def describe_profile(profile: UserProfile, banned: Collection[str] | None) -> str:
    """A paragraph for language models: only what is told, the same text for the same user.

    ``banned`` None leaves the bans out; an empty one says that nothing is banned.
    """
    told = [
        f"{title}: {value}."
        for title, value in (
            ("Age", profile.age), ("Age group", profile.age_group), ("Gender", profile.gender),
            ("Religion", profile.religion), ("Physical condition", profile.physical),
            ("Mental condition", profile.mental),
        )
        if value is not None
    ]  # fmt: skip
    bans = [] if banned is None else [f"Banned categories: {', '.join(sorted(banned)) or 'none'}."]
    return " ".join([*(told or ["Nothing is known about this user."]), *bans])


def read_profiles(path: Path) -> dict[str, Told]:
    """Users of a CSV by id, each with the categories they ban, None where that is not told.

    Columns: ``user_id`` and any of ``age, gender, religion, physical, mental, banned``; ``banned``
    holds category names joined by "+", or "nothing". Values are matched in lower case; an empty
    cell is "not told". Whether banned names are categories is for ``pipeline.personal.bans``.

    Raises InputError that names the file, the data row (counted from 0) and the field, never a
    value: what stands in these files is private.
    """
    path = Path(path)
    users: dict[str, Told] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for k, cells in enumerate(_read_cells(file)):
                where = f"{path} data row {k}"
                user_id = cells.pop("user_id")
                if not user_id or user_id in users:
                    raise InputError(f"{where}: user_id: is empty or an earlier row's; give every "
                                     "user one of their own")  # fmt: skip
                users[user_id] = _read_user(where, cells)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path} as a UTF-8 CSV of users: {error}") from error
    if not users:
        raise InputError(f"{path} holds no user; give one a row below the column names")
    return users


def _read_cells(file: TextIO) -> Iterator[dict[str, str]]:
    """The rows as stripped cells by column; pandas would turn "None" into a missing value."""
    reader = csv.reader(file)
    header = [name.strip().lower() for name in next(reader, [])]
    if "user_id" not in header:  # names of another file may be private: not shown
        raise InputError(f"{file.name}: its first line has no column user_id")
    for n, name in enumerate(header):
        if name not in COLUMNS or name in header[:n]:
            raise InputError(f"{file.name}: column {name!r} is unknown or there twice; known: "
                             f"{', '.join(COLUMNS)}")  # fmt: skip
    for k, row in enumerate(cells for cells in reader if cells):
        if len(row) != len(header):
            raise InputError(f"{file.name} data row {k} has {len(row)} fields, the header "
                             f"{len(header)}; a field with a comma in it needs quotes")  # fmt: skip
        yield dict(zip(header, (cell.strip() for cell in row), strict=True))


def _read_user(where: str, cells: Mapping[str, str]) -> Told:
    told = {field: cell.lower() for field, cell in cells.items() if cell}
    banned = _read_bans(where, told.pop("banned", None))
    try:
        profile = UserProfile.model_validate(told)
    except ValidationError as error:
        faults = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise InputError(f"{where}: {faults}") from None
    if reason := impossible(profile):
        raise InputError(f"{where}: {reason}; correct it, or leave a cell empty")
    return profile, banned


def _read_bans(where: str, cell: str | None) -> frozenset[str] | None:
    if cell is None:
        return None
    names = frozenset(name.strip() for name in cell.split("+"))
    if names == {BANS_NOTHING}:
        return frozenset()
    if BANS_NOTHING in names or not all(re.fullmatch(SLUG, name) for name in names):
        raise InputError(f"{where}: banned: category names joined by '+' are expected, or "
                         f"{BANS_NOTHING!r} alone")  # fmt: skip
    return names
