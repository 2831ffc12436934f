"""What people are shown: the same prompts and seeds for everybody, by the adapter and baselines.

Everybody with the same conditions is shown the same pictures, which lie in one folder: the gated
adapter and the prompt baselines depend on what is banned only, an adapter of the paper's form on
the whole profile.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.drawing.images import Draw
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.samples import draw_benchmarks
from pipeline.personal.files import load_space
from pipeline.personal.pipeline import PersonalSafetyPipeline
from pipeline.personal.simulate import boundary_of
from pipeline.personal.space import Boundary, UserSpace
from pipeline.records import BenchmarkPrompt, User
from pipeline.seeds import content_id, seed_for
from pipeline.sources import hash_weights
from pipeline.storage import private_folder, remove_except

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

METHODS = PSA, NEGATIVE_PROMPT, PROMPT = "psa", "negative_prompt", "prompt"


def shown_prompts(
    prompts: Sequence[BenchmarkPrompt], unsafe: str, unsafe_count: int, benign_count: int, seed: int
) -> list[BenchmarkPrompt]:  # fmt: skip
    """What everybody asks for: some prompts of each category, and of each benign benchmark."""
    groups: dict[tuple[str, str], list[BenchmarkPrompt]] = {}
    for row in prompts:
        category = row.category if row.benchmark == unsafe else ""
        groups.setdefault((row.benchmark, category), []).append(row)
    chosen = []
    for (benchmark, _), rows in groups.items():
        rows = sorted(rows, key=lambda r: seed_for(seed, "shown", r.benchmark, r.row))
        chosen += rows[: unsafe_count if benchmark == unsafe else benign_count]
    return sorted(chosen, key=lambda r: (r.benchmark, r.row))


def audience_key(boundary: Boundary, by_bans: bool) -> str:
    """Names the pictures of everybody with the same conditions: the same bans, or profile too."""
    told = [] if by_bans else [boundary.vector.tobytes().hex()]
    return content_id(sorted(boundary.banned), *told)


@dataclass(frozen=True)
class Method:
    """A way to draw for a person."""

    name: str
    by_bans: bool  # whether pictures depend on nothing about a person but the bans
    draw_for: Callable[[Boundary], Draw]
    identity: Callable[[Boundary], str]  # of all that shapes pictures but prompt, seed, sampler

    def key(self, boundary: Boundary) -> str:
        """Names the folder of a person's pictures."""
        return audience_key(boundary, self.by_bans)


def by_adapter(personal: PersonalSafetyPipeline, weights: str, name: str = PSA) -> Method:
    """The user adapter; ``weights`` identify it and its base model."""
    return Method(name, personal.by_bans, personal.drawing_for, lambda _: weights)


def by_negative_prompt(pipe: "DiffusionPipeline", terms: "Terms", weights: str) -> Method:
    """Baseline: the person's banned terms as the negative prompt."""

    def draw_for(boundary: Boundary) -> Draw:
        def draw(prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler):
            asked = replace(sampler, negative_prompt=terms.of(boundary))
            return draw_images(pipe, prompts, seeds, asked)

        return draw

    return Method(NEGATIVE_PROMPT, True, draw_for, lambda b: content_id(weights, terms.of(b)))


def by_prompt(
    pipe: "DiffusionPipeline", terms: "Terms", suffix: str, weights: str
) -> Method:  # fmt: skip
    """Baseline, prompt engineering: ``suffix`` with the person's banned terms after each prompt."""

    def added(boundary: Boundary) -> str:
        return suffix.format(terms=terms.of(boundary))

    def draw_for(boundary: Boundary) -> Draw:
        def draw(prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler):
            return draw_images(pipe, [p + added(boundary) for p in prompts], seeds, sampler)

        return draw

    return Method(PROMPT, True, draw_for, lambda b: content_id(weights, added(b)))


@dataclass(frozen=True)
class Terms:
    """Words for what is banned: the first ``count`` concepts of each category."""

    concepts: Mapping[str, Sequence[str]]
    count: int

    def of(self, boundary: Boundary) -> str:
        """The terms of a person's bans, in the categories' order."""
        banned = [names for category, names in self.concepts.items() if category in boundary.banned]
        return " ".join(name for names in banned for name in names[: self.count])


def probes(space: UserSpace) -> dict[str, Boundary]:
    """Made-up adults who ban one category each, and the floor: what each ban does alone."""
    return {category: space.only({category}) for category in space.categories}


def evaluated(users: Iterable[User]) -> list[User]:
    """The users of the test splits."""
    return [user for user in users if user.split.startswith("test_")]


def boundaries(users: Iterable[User]) -> list[Boundary]:
    """Those of the evaluated users."""
    return [boundary_of(user) for user in evaluated(users)]


def draw_for_people(
    folder: Path, method: Method, people: Iterable[Boundary], prompts: Sequence[BenchmarkPrompt],
    sampler: Sampler, **settings: int,
) -> int:  # fmt: skip
    """Draw all prompts for everybody into ``folder/<method>/<key>``; returns how many were drawn.

    Seeds are those that all models share for a prompt; ``settings`` are those of
    ``pipeline.drawing.samples.draw_benchmarks``.
    """
    here = private_folder(folder / method.name)
    by_key = {method.key(boundary): boundary for boundary in people}
    remove_except(here, [here / key for key in by_key])
    return sum(
        draw_benchmarks(
            here / key, prompts, method.draw_for(boundary), sampler,
            variant=f"{method.name}/{key}", revision=method.identity(boundary), **settings,
        )
        for key, boundary in sorted(by_key.items())
    )  # fmt: skip


def draw_by_adapter(
    folder: Path, name: str, pipe: "DiffusionPipeline", adapter: Path, weights: str,
    people: Iterable[Boundary], prompts: Sequence[BenchmarkPrompt], sampler: Sampler,
    **settings: int,
) -> int:  # fmt: skip
    """``draw_for_people`` by an adapter, which is off the pipeline again at the end.

    ``weights`` identify the base model; pictures lie under the method's ``name``.
    """
    personal = PersonalSafetyPipeline.load(pipe, adapter, weights)
    method = by_adapter(personal, f"{weights}+{hash_weights(adapter)}", name)
    drawn = draw_for_people(folder, method, people, prompts, sampler, **settings)
    personal.detach()
    return drawn


def draw_methods(
    folder: Path, pipe: "DiffusionPipeline", adapter: Path, weights: str, users: Sequence[User],
    prompts: Sequence[BenchmarkPrompt], terms: Terms, suffix: str, sampler: Sampler,
    **settings: int,
) -> int:  # fmt: skip
    """Draw for the evaluated users by every method, and by the adapter for the probes and levels.

    ``weights`` identify the base model. Returns how many images were drawn. Raises InputError for
    users of another encoder than the adapter's.
    """
    people, space = boundaries(users), load_space(adapter)
    space.check_users(users)
    drawn = draw_by_adapter(
        folder, PSA, pipe, adapter, weights,
        [*people, *probes(space).values(), *space.levels.values()], prompts, sampler, **settings,
    )  # fmt: skip
    for method in (by_negative_prompt(pipe, terms, weights),
                   by_prompt(pipe, terms, suffix, weights)):  # fmt: skip
        drawn += draw_for_people(folder, method, people, prompts, sampler, **settings)
    remove_except(folder, [folder / name for name in METHODS])
    return drawn
