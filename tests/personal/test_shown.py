import dataclasses
import itertools

import numpy as np
import pytest

from pipeline.artifacts import TESTBED
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.samples import draw_benchmarks
from pipeline.errors import InputError
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.files import save_adapter
from pipeline.personal.shown import (
    METHODS,
    Method,
    Terms,
    audience_key,
    boundaries,
    by_adapter,
    by_negative_prompt,
    by_prompt,
    draw_by_adapter,
    draw_for_people,
    draw_methods,
    evaluated,
    probes,
    shown_prompts,
)
from pipeline.personal.space import Boundary
from pipeline.pixels import decode_image
from pipeline.records import BenchmarkImage, BenchmarkPrompt
from pipeline.sources import ModelSource
from pipeline.storage import read_rows
from tests.drawing.test_images import FakeModel
from tests.personal.examples import CATEGORIES, make_space, make_user, randomise

SPACE = make_space()
SAMPLER = Sampler("ddim", 2, 2.5, 64)
DRAWING = {"base_seed": 0, "shard_rows": 8, "batch": 4}
TERMS = Terms({"hate": ["inkzag", "coilgnat"], "violence": ["thornburst", "jagnova"],
               "sexual": ["gridblush"]}, 2)  # fmt: skip


def prompt(k, category="hate", benchmark="heldout", **own):
    kind = "unsafe" if benchmark == "heldout" else "benign"
    return BenchmarkPrompt(benchmark, kind, k, 0, f"a red star {benchmark} {k}", category, "c", "",
                           **own)  # fmt: skip


PROMPTS = [prompt(0), prompt(1, "violence"), prompt(0, "", "benign")]


def boundary(*banned, seed=0):
    vector = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    return Boundary(frozenset(banned), vector)


def test_everybody_asks_for_some_of_every_category_and_benign_benchmark():
    rows = [
        *(prompt(k, c) for k, c in enumerate(["hate"] * 6 + ["violence"] * 6 + ["sexual"])),
        *(prompt(k, "", b) for b in ("benign", "lookalike") for k in range(9)),
    ]
    found = shown_prompts(rows, "heldout", 3, 4, seed=0)
    counts = {}
    for row in found:
        counts[row.benchmark, row.category] = counts.get((row.benchmark, row.category), 0) + 1
    assert counts == {("heldout", "hate"): 3, ("heldout", "violence"): 3, ("heldout", "sexual"): 1,
                      ("benign", ""): 4, ("lookalike", ""): 4}  # fmt: skip
    assert found == sorted(found, key=lambda r: (r.benchmark, r.row))
    assert shown_prompts(rows[::-1], "heldout", 3, 4, seed=0) == found
    assert shown_prompts(rows, "heldout", 3, 4, seed=1) != found
    more = shown_prompts(rows, "heldout", 4, 5, seed=0)
    assert set(found) < set(more)  # raising a count keeps what was drawn


def test_a_benign_benchmarks_prompts_are_counted_whatever_its_categories():
    rows = [prompt(k, ["", "hate", "violence"][k % 3], "lookalike") for k in range(12)]
    assert len(shown_prompts(rows, "heldout", 3, 4, seed=0)) == 4


def test_pictures_are_named_by_bans_or_by_the_whole_person():
    one, other = boundary("hate", "sexual"), boundary("sexual", "hate", seed=1)
    assert audience_key(one, True) == audience_key(other, True)
    assert audience_key(one, False) != audience_key(other, False)
    assert audience_key(one, False) == audience_key(dataclasses.replace(one), False)
    assert audience_key(one, True) != audience_key(boundary("hate"), True)
    assert audience_key(one, False) != audience_key(Boundary(frozenset(), one.vector), False)
    assert audience_key(boundary(), True) != audience_key(one, True)


def test_terms_are_the_first_of_every_ban_in_the_categories_order():
    assert TERMS.of(boundary("violence", "hate")) == "inkzag coilgnat thornburst jagnova"
    assert dataclasses.replace(TERMS, count=1).of(boundary("sexual", "violence")) == (
        "thornburst gridblush"
    )
    assert TERMS.of(boundary()) == ""


def test_probes_ban_one_category_each_and_the_floor():
    found = probes(SPACE)
    assert {name: b.banned for name, b in found.items()} == {
        "hate": {"hate", "sexual"}, "violence": {"violence", "sexual"}, "sexual": {"sexual"}
    }  # fmt: skip


def test_users_of_the_test_splits_are_evaluated():
    users = [make_user(s, split=s) for s in ("train", "val", "test_seen", "test_unseen")]
    assert [user.user_id for user in evaluated(users)] == ["test_seen", "test_unseen"]


class FakePersonal:
    """Tells for whom it draws, and draws what any model would."""

    by_bans = True

    def __init__(self):
        self.asked = []

    def drawing_for(self, person):
        def draw(prompts, seeds, sampler):
            self.asked.append((person.banned, list(prompts), list(seeds), sampler))
            return FakeModel()(prompts, seeds, sampler)

        return draw


@pytest.fixture
def asked(monkeypatch):
    """What plain models are asked for by the baselines."""
    calls = []

    def fake(pipe, prompts, seeds, sampler):
        calls.append((pipe, list(prompts), list(seeds), sampler))
        return FakeModel()(prompts, seeds, sampler)

    monkeypatch.setattr("pipeline.personal.shown.draw_images", fake)
    return calls


def methods(terms=TERMS, suffix=", without {terms}", weights="w"):
    return [by_adapter(FakePersonal(), weights), by_negative_prompt("pipe", terms, weights),
            by_prompt("pipe", terms, suffix, weights)]  # fmt: skip


def test_each_method_asks_for_the_person_in_its_own_way(asked):
    person, seeds = boundary("violence"), [4, 5]
    psa, negative, engineered = methods()
    assert [m.name for m in (psa, negative, engineered)] == list(METHODS)
    personal = FakePersonal()
    by_adapter(personal, "w").draw_for(person)(["a", "b"], seeds, SAMPLER)
    assert personal.asked == [({"violence"}, ["a", "b"], seeds, SAMPLER)]
    assert not asked
    negative.draw_for(person)(["a", "b"], seeds, SAMPLER)
    with_terms = dataclasses.replace(SAMPLER, negative_prompt="thornburst jagnova")
    assert asked == [("pipe", ["a", "b"], seeds, with_terms)]
    engineered.draw_for(person)(["a", "b"], seeds, SAMPLER)
    suffix = ", without thornburst jagnova"
    assert asked[1] == ("pipe", [f"a{suffix}", f"b{suffix}"], seeds, SAMPLER)


def test_what_shapes_a_methods_pictures_is_in_its_identity():
    person = boundary("violence")

    def identities(**told):
        return [m.identity(person) for m in methods(**told)]

    plain = identities()
    assert plain == identities() and len(set(plain)) == 3
    assert all(a != b for a, b in zip(plain, identities(weights="other"), strict=True))
    terms = Terms({"violence": ["emberspur"]}, 1)
    changed = [a != b for a, b in zip(plain, identities(terms=terms), strict=True)]
    assert changed == [False, True, True]
    changed = [a != b for a, b in zip(plain, identities(suffix=" no {terms}"), strict=True)]
    assert changed == [False, False, True]
    for method in methods()[1:]:
        assert method.identity(person) != method.identity(boundary("hate"))
    assert by_adapter(FakePersonal(), "w", "one_token").name == "one_token"


PEOPLE = [boundary("hate", "sexual"), boundary("sexual"), boundary("hate", "sexual", seed=1)]


def stored(folder, method, person):
    return read_rows(folder / method.name / method.key(person), BenchmarkImage)


def test_the_same_prompts_and_seeds_for_everybody_by_every_method(tmp_path, asked):
    """METHOD 2.5 no. 9: and the user's own prompt is what pictures are measured by."""
    found = []
    for method in methods():
        drawn = draw_for_people(tmp_path, method, PEOPLE, PROMPTS, SAMPLER, **DRAWING)
        assert drawn == 2 * len(PROMPTS)  # two of the three people ban the same
        found += [stored(tmp_path, method, person) for person in PEOPLE[:2]]
    base = FakeModel()  # as every model variant is drawn, merges too
    draw_benchmarks(tmp_path / "base", PROMPTS, base, SAMPLER, variant="base", revision="w",
                    **DRAWING)  # fmt: skip
    found.append(read_rows(tmp_path / "base", BenchmarkImage))
    assert {dataclasses.replace(s, negative_prompt="") for *_, s in asked} == {SAMPLER}
    seeds = [{(r.benchmark, r.row): (r.seed, r.prompt) for r in rows} for rows in found]
    assert all(some == seeds[0] for some in seeds)
    assert len({seed for seed, _ in seeds[0].values()}) == len(PROMPTS)
    assert {p for _, p in seeds[0].values()} == {p.prompt for p in PROMPTS}
    ids = [r.image_id for rows in found for r in rows]
    assert len(set(ids)) == len(ids)
    assert found[0][0].variant == f"psa/{audience_key(PEOPLE[0], True)}"
    for method in METHODS:
        assert (tmp_path / method).stat().st_mode & 0o777 == 0o700


def test_an_adapter_of_the_papers_form_draws_for_every_person_apart(tmp_path):
    personal = FakePersonal()
    personal.by_bans = False
    method = by_adapter(personal, "w")
    assert draw_for_people(tmp_path, method, PEOPLE, PROMPTS, SAMPLER, **DRAWING) == 9
    assert len({method.key(person) for person in PEOPLE}) == 3


def test_what_is_there_is_not_drawn_again_and_what_nobody_is_shown_is_removed(tmp_path, asked):
    for method in methods():
        draw_for_people(tmp_path, method, PEOPLE, PROMPTS, SAMPLER, **DRAWING)
        assert draw_for_people(tmp_path, method, PEOPLE, PROMPTS, SAMPLER, **DRAWING) == 0
        (tmp_path / method.name / "stray.parquet").write_bytes(b"x")
        some = [PEOPLE[1], boundary("violence")]
        assert draw_for_people(tmp_path, method, some, PROMPTS, SAMPLER, **DRAWING) == 3
        here = {path.name for path in (tmp_path / method.name).iterdir()}
        assert here == {method.key(person) for person in some}


def test_other_terms_draw_the_baselines_anew_and_not_the_adapter(tmp_path, asked):
    for terms in (TERMS, dataclasses.replace(TERMS, count=1)):
        drawn = [
            draw_for_people(tmp_path, method, PEOPLE[:1], PROMPTS, SAMPLER, **DRAWING)
            for method in methods(terms)
        ]
    assert drawn == [0, 3, 3]


def test_a_hard_blocked_prompt_is_shown_to_nobody(tmp_path):
    row = dataclasses.replace(PROMPTS[0], prompt="a naked child")
    with pytest.raises(InputError, match="benchmark heldout row 0 is hard-blocked"):
        draw_for_people(tmp_path, methods()[0], PEOPLE, [row], SAMPLER, **DRAWING)


SOURCE = ModelSource(str(TESTBED / "sd"))
USERS = [
    make_user("u", {"violence", "sexual"}, "test_seen", vector=SPACE.only({"violence"}).vector),
    make_user("v", CATEGORIES, "test_unseen", age=9, vector=SPACE.strictest.vector),
    make_user("w", {"hate", "sexual"}, "train", vector=SPACE.only({"hate"}).vector),
]


def save(path, unet, form="gated", seed=0):
    adapter = PersonalAdapter(
        unet, AdapterSettings(form, 2, 8, 8, 4), CATEGORIES, SPACE.width, seed
    )
    save_adapter(path, randomise(adapter, seed, 0.1), SPACE, {"base_revision": SOURCE.identity})
    return path


def pixels(folder):
    return [np.asarray(decode_image(r.image), np.int16) for r in read_rows(folder, BenchmarkImage)]


def test_the_bundled_model_draws_by_every_method(testbed_pipeline, tmp_path):
    adapter, folder = save(tmp_path / "psa", testbed_pipeline.unet), tmp_path / "images"

    def draw(terms=TERMS):
        return draw_methods(
            folder, testbed_pipeline, adapter, SOURCE.identity, USERS, PROMPTS[:2], terms,
            ", without {terms}", SAMPLER, **DRAWING,
        )  # fmt: skip

    # by the adapter for u, v, three probes, of whom one bans as u does, and two levels, of which
    # one bans as a probe and one as v does; by the others for u and v
    assert draw() == 2 * (4 + 2 + 2)
    (folder / "stray").mkdir()
    assert draw() == 0
    assert {path.name for path in folder.iterdir()} == set(METHODS)
    assert not any(m._forward_hooks for m in testbed_pipeline.unet.modules())
    u, v = (audience_key(SPACE.only(b), True) for b in ({"violence"}, CATEGORIES))
    shown = {m: [pixels(folder / m / key) for key in (u, v)] for m in METHODS}
    for one, other in itertools.combinations([p for some in shown.values() for p in some], 2):
        assert all(np.abs(a - b).max() > 3 for a, b in zip(one, other, strict=True))
    assert draw(dataclasses.replace(TERMS, count=1)) == 2 * (2 + 2)
    save(adapter, testbed_pipeline.unet, seed=1)  # another adapter
    assert draw(dataclasses.replace(TERMS, count=1)) == 2 * 4


def test_another_form_draws_for_the_evaluated_users_under_its_own_name(testbed_pipeline, tmp_path):
    adapter = save(tmp_path / "psa", testbed_pipeline.unet, "attention")
    drawn = draw_by_adapter(tmp_path / "images", "one_token", testbed_pipeline, adapter,
                            SOURCE.identity, boundaries(USERS), PROMPTS[:1], SAMPLER,
                            **DRAWING)  # fmt: skip
    assert not any(m._forward_hooks for m in testbed_pipeline.unet.modules())
    assert drawn == 2
    keys = [audience_key(Boundary(frozenset(u.banned.split("+")),
                                  np.frombuffer(u.vector, np.float32)), False)
            for u in USERS[:2]]  # fmt: skip
    assert {p.name for p in (tmp_path / "images/one_token").iterdir()} == set(keys)


def test_a_method_is_named_by_what_it_depends_on():
    whole = Method("m", False, lambda _: None, str)
    assert whole.key(PEOPLE[0]) != whole.key(PEOPLE[2])
    by_bans = dataclasses.replace(whole, by_bans=True)
    assert by_bans.key(PEOPLE[0]) == by_bans.key(PEOPLE[2])
