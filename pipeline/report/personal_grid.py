"""The grid of people: one prompt and seed drawn for the base model and for everybody's bans."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.benchmarks import categories_of
from pipeline.evaluate.measures import benchmark_title
from pipeline.records import BENIGN, UNSAFE, BenchmarkImage, JudgedImage
from pipeline.report.data import BASE, Personal
from pipeline.report.grid import MAKERS, Picture, choose_prompts, make_picture

UNSAFE_COLUMNS = 8  # at most, of each unsafe benchmark: the first prompt of every category
PERSONAL_MAKERS = "sample_psa", "score_psa"  # as MAKERS, of what people are shown


@dataclass(frozen=True)
class Column:
    """A prompt, named by what it asks for and its line in the benchmark's file."""

    title: str
    benchmark: str
    row: int


@dataclass(frozen=True)
class Cell:
    """A picture that somebody is shown; ``stance`` is theirs on the prompt, "" without one."""

    picture: Picture
    stance: str  # "banned" or "allowed"; "" for the base model and of benign prompts

    @property
    def unwanted(self) -> bool:
        """Whether it is inappropriate though nobody allowed that."""
        return self.picture.flagged and self.stance != "allowed"

    @property
    def mark(self) -> str:
        """Stance and verdict under the picture, "" where there is neither."""
        said = self.stance or ("flagged" if self.picture.flagged else "")
        return f"⚑ {said}" if self.picture.flagged else said

    @property
    def words(self) -> str:
        """Stance and verdict for those who hear the page."""
        verdict = "flagged" if self.picture.flagged else "not flagged"
        return f"{self.stance}, {verdict}" if self.stance else verdict


@dataclass(frozen=True)
class Person:
    """Who is shown the pictures of a row: the base model, or the user that stands for a level."""

    name: str
    bans: str  # in words
    cells: list[Cell]


@dataclass(frozen=True)
class PeopleGrid:
    """People by prompts."""

    columns: list[Column]
    people: list[Person]


def choose_columns(images: Sequence[BenchmarkImage | JudgedImage]) -> list[tuple[str, int]]:
    """Benchmark and row of the first prompt of each category and of each benign benchmark.

    What was drawn plays no part in the choice.
    """
    kinds = {i.benchmark: i.kind for i in sorted(images, key=lambda i: i.benchmark)}
    counts = {UNSAFE: UNSAFE_COLUMNS, BENIGN: 1}
    chosen = [
        prompt for kind, count in counts.items() for name in kinds if kinds[name] == kind
        for prompt in _first_of_each(choose_prompts(images, name, count))
    ]  # fmt: skip
    return [(prompt.benchmark, prompt.row) for prompt in chosen]


def _first_of_each(
    prompts: Sequence[BenchmarkImage | JudgedImage],
) -> list[BenchmarkImage | JudgedImage]:
    """Without further prompts of a category."""
    first: dict[str, BenchmarkImage | JudgedImage] = {}
    for prompt in prompts:
        first.setdefault(prompt.category, prompt)
    return list(first.values())


def people_grid(personal: Personal) -> PeopleGrid:
    """The base model's pictures, then those of every level, from the same seeds.

    Raises InputError when somebody lacks an image, or an image a verdict: not judged is not safe.
    """
    asked = {(i.benchmark, i.row): i for some in personal.images.values() for i in some}
    prompts = {key: asked[key] for key in choose_columns(list(asked.values()))}
    bans = {level: found["banned"] for level, found in personal.control["levels"].items()}
    return PeopleGrid(
        [Column(_title(prompt), *key) for key, prompt in prompts.items()],
        [Person(BASE, "", _cells(personal, BASE, (), prompts))]
        + [Person(level, bans_in_words(banned, personal), _cells(personal, level, banned, prompts))
           for level, banned in bans.items()],
    )  # fmt: skip


def _title(prompt: BenchmarkImage) -> str:
    return prompt.category or benchmark_title(prompt.benchmark)


def _cells(
    personal: Personal, name: str, banned: Collection[str],
    prompts: Mapping[tuple[str, int], BenchmarkImage],
) -> list[Cell]:  # fmt: skip
    index = {(i.benchmark, i.row): i for i in personal.images.get(name, ())}
    makers = MAKERS if name == BASE else PERSONAL_MAKERS
    found = []
    for key, prompt in prompts.items():
        categories = categories_of(prompt.category)
        stance = "allowed" if set(banned).isdisjoint(categories) else "banned"
        picture = make_picture(name, index, *key, personal.verdicts, makers)
        found.append(Cell(picture, stance if categories and name != BASE else ""))
    return found


def bans_in_words(banned: Collection[str], personal: Personal) -> str:
    """What somebody bans; the floor, which everybody bans, is named only where it is all."""
    own = [c for c in personal.categories if c in banned and c not in personal.floor]
    if len(own) == len(set(personal.categories) - set(personal.floor)):
        return "bans everything"
    return f"bans {', '.join(own)}" if own else "bans the floor alone"
