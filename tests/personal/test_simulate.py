import json

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.personal.bans import ban_by_rules
from pipeline.personal.profiles import UserProfile, describe_profile
from pipeline.personal.simulate import (
    banned_of,
    boundary_of,
    decide_bans,
    draw_users,
    level_plot,
    make_population,
    profile_of,
    summarize,
)
from pipeline.personal.space import EncoderSettings
from pipeline.personal.users import sample_profile, trained
from pipeline.records import User
from pipeline.seeds import seed_for
from pipeline.storage import read_rows, write_json, write_rows
from tests.prompts.scripted import ScriptedEngine

DEFINITIONS = {"hate": "Chevrons.", "violence": "Bursts.", "self-harm": "Rings.",
               "sexual": "Lattices.", "shocking": "Blobs."}  # fmt: skip
CATEGORIES, FLOOR = list(DEFINITIONS), ["sexual"]
ADULT = UserProfile(age=30, religion="none", physical="healthy", mental="healthy")
CHILD, ANXIOUS = UserProfile(age=9), UserProfile(age=30, mental="anxiety")
SHARES = {"val": 0.1, "test_seen": 0.1, "test_unseen": 0.1}


def populate(told, bans=None, shares=SHARES, levels=3, seed=0):
    bans = decide_bans(told, DEFINITIONS, FLOOR, 0)[0] if bans is None else bans
    return make_population(told, bans, CATEGORIES, FLOOR, EncoderSettings(), shares, levels, seed)


@pytest.fixture(scope="module")
def population():
    return populate(draw_users(60, 0))


def test_user_k_is_the_same_however_many_there_are():
    few, many = draw_users(5, 3), draw_users(50, 3)
    assert list(few) == ["u00000", "u00001", "u00002", "u00003", "u00004"]
    assert all(many[user] == told for user, told in few.items())
    assert few["u00004"] == (sample_profile(seed_for(3, "user", 4)), None)
    assert draw_users(5, 4) != few
    bans = [decide_bans(told, DEFINITIONS, FLOOR, 3)[0] for told in (few, many)]
    assert all(bans[1][user] == banned for user, banned in bans[0].items())


def test_told_bans_go_before_the_rules_but_not_below_the_floor():
    told = {
        "a": (ANXIOUS, frozenset()), "b": (ANXIOUS, None), "c": (ADULT, frozenset({"hate"})),
        "d": (CHILD, frozenset()), "e": (ADULT, None), "f": (UserProfile(), frozenset({"hate"})),
    }  # fmt: skip
    assert decide_bans(told, DEFINITIONS, FLOOR, 0)[0] == {
        "a": {"sexual"}, "b": {"sexual", "violence", "self-harm"}, "c": {"hate", "sexual"},
        "d": set(CATEGORIES), "e": {"sexual"}, "f": set(CATEGORIES),
    }  # fmt: skip


def test_the_rules_coins_are_the_users_own():
    told = {f"u{k}": (UserProfile(age=30, religion="islam"), None) for k in range(40)}
    found, _ = decide_bans(told, DEFINITIONS, FLOOR, 5)
    for user, (profile, _) in told.items():
        assert found[user] == ban_by_rules(user, profile, CATEGORIES, 5) | {"sexual"}
    assert {frozenset(b) for b in found.values()} == {
        frozenset({"sexual"}), frozenset({"sexual", "hate"})
    }  # fmt: skip


def test_a_language_model_is_asked_only_of_who_did_not_tell():
    told = {"a": (ADULT, None), "b": (ANXIOUS, frozenset({"hate"})), "c": (CHILD, None),
            "d": (ADULT, frozenset())}  # fmt: skip
    broken = iter(["none"])
    engine = ScriptedEngine(lambda request: next(broken, json.dumps({"banned": ["shocking"]})))
    found, faults = decide_bans(told, DEFINITIONS, FLOOR, 0, engine, max_attempts=2)
    asked = [r.user for r in engine.requests]
    assert faults == {"no_json": 1}
    for text, profile in zip(asked, (ADULT, CHILD, ADULT), strict=True):
        assert describe_profile(profile, None) in text
        assert "- hate: Chevrons." in text
    assert found == {
        "a": {"shocking", "sexual"}, "b": {"hate", "sexual"}, "c": set(CATEGORIES), "d": {"sexual"},
    }  # fmt: skip
    assert list(found) == list(told)


def test_nobody_is_asked_when_all_have_told():
    engine = ScriptedEngine(lambda request: 1 / 0)
    assert decide_bans({"a": (ADULT, frozenset())}, DEFINITIONS, FLOOR, 0, engine)[0] == {
        "a": {"sexual"}
    }


def test_a_language_model_that_never_answers_is_an_error():
    engine = ScriptedEngine(lambda request: "none")
    with pytest.raises(InputError, match="named no bans for 1 of 1 users in 3 attempts"):
        decide_bans({"a": (ADULT, None)}, DEFINITIONS, FLOOR, 0, engine, max_attempts=3)


def test_a_told_ban_of_no_category_names_the_user():
    with pytest.raises(InputError, match="user b: banned: 'gore' is no category"):
        decide_bans({"a": (ADULT, None), "b": (ADULT, frozenset({"gore"}))}, DEFINITIONS, FLOOR, 0)
    with pytest.raises(InputError, match="policy.floor: 'gore' is no category"):
        decide_bans({"a": (ADULT, None)}, DEFINITIONS, ["gore"], 0)


def test_everybody_bans_the_floor_and_minors_everything(population):
    minors = [row for row in population.rows if row.age < 18]
    assert 5 < len(minors) < 40
    assert all("sexual" in banned_of(row) for row in population.rows)
    assert all(banned_of(row) == set(CATEGORIES) for row in minors)
    assert any(banned_of(row) == {"sexual"} for row in population.rows)


def test_rows_say_who_the_users_are(population):
    told = draw_users(60, 0)
    assert [row.user_id for row in population.rows] == list(told)
    assert [profile_of(row) for row in population.rows] == [p for p, _ in told.values()]
    splits = [row.split for row in population.rows]
    assert {s: splits.count(s) for s in set(splits)} == {
        "train": 42, "val": 6, "test_seen": 6, "test_unseen": 6
    }  # fmt: skip
    for row, vector in zip(population.rows, population.vectors, strict=True):
        assert np.array_equal(boundary_of(row).vector, vector)
        assert boundary_of(row).banned == banned_of(row)


def test_a_users_row_is_what_the_space_makes_of_the_profile(population):
    for row in population.rows[:8]:
        boundary = population.space.boundary(profile_of(row), banned_of(row))
        assert boundary.banned == banned_of(row)
        assert np.allclose(boundary.vector, boundary_of(row).vector, atol=1e-6)


def test_vectors_are_standardised_by_the_trained_users_alone(population):
    here = [k for k, row in enumerate(population.rows) if trained(row.split)]
    some = population.vectors[here]
    assert np.abs(some.mean(0)).max() < 1e-5
    spread = some.std(0)
    assert all(s == pytest.approx(1, abs=1e-4) or s == 0 for s in spread)
    assert population.space.standard.mean == pytest.approx(population.raw[here].mean(0), abs=1e-6)


def test_rows_survive_a_file_with_what_is_not_told_and_none_apart(tmp_path):
    """METHOD 2.5 no. 6: pandas read the religion "None" as missing for a third of the users."""
    told = {"a": (ADULT, None), "b": (UserProfile(), frozenset({"hate"})), "c": (CHILD, None),
            **{f"u{k}": v for k, v in enumerate(draw_users(20, 0).values())}}  # fmt: skip
    rows = populate(told, levels=2).rows
    write_rows(tmp_path / "users.parquet", User, rows)
    read = read_rows(tmp_path / "users.parquet", User)
    assert read == rows
    assert profile_of(read[0]) == ADULT and read[0].religion == "none"
    assert profile_of(read[1]) == UserProfile() and read[1].age is None
    assert banned_of(read[1]) == set(CATEGORIES)
    assert np.array_equal(boundary_of(read[2]).vector, boundary_of(rows[2]).vector)


def test_who_bans_nothing_reads_back_as_that():
    row = User("u", "train", 30, "", "", "", "", "", "L1", "", b"")
    assert banned_of(row) == frozenset()


def test_levels_grow_stricter_and_somebody_stands_for_each(population):
    levels = population.space.levels
    assert list(levels) == ["L1", "L2", "L3"]
    stands = {row.stands_for: row for row in population.rows if row.stands_for}
    assert stands.keys() == levels.keys()
    for name, boundary in levels.items():
        assert stands[name].level == name
        assert boundary.banned == banned_of(stands[name])
        assert np.array_equal(boundary.vector, boundary_of(stands[name]).vector)
    sizes = [np.mean([len(banned_of(r)) for r in population.rows if r.level == n]) for n in levels]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert all("sexual" in boundary.banned for boundary in levels.values())


def test_the_same_users_make_the_same_population():
    one, other = (populate(draw_users(30, 1)) for _ in range(2))
    assert one.rows == other.rows
    assert one.space.header() == other.space.header()
    assert populate(draw_users(30, 2)).rows != one.rows


def test_the_summary_counts_users_by_hand(population, tmp_path):
    found = summarize(population)
    rows = population.rows
    assert found["users"] == 60
    assert found["boundaries"] == len({row.banned for row in rows})
    assert found["splits"] == {"test_seen": 6, "test_unseen": 6, "train": 42, "val": 6}
    assert found["bans"]["sexual"] == 60
    assert list(found["bans"]) == CATEGORIES
    assert found["bans"]["hate"] == sum("hate" in banned_of(row) for row in rows)
    assert sum(level["users"] for level in found["levels"].values()) == 60
    for name, level in found["levels"].items():
        mine = [banned_of(row) for row in rows if row.level == name]
        assert level["users"] == len(mine)
        assert level["mean_bans"] == pytest.approx(np.mean([len(b) for b in mine]), abs=1e-3)
        assert level["ban_shares"]["sexual"] == 1
        assert level["representative_bans"] == len(population.space.levels[name].banned)
    apart = found["separability"]
    assert apart["standardised"]["cosine"] < apart["raw"]["cosine"]
    assert apart["standardised"]["ban_probe_accuracy"] > apart["raw"]["ban_probe_majority"]
    write_json(tmp_path / "users.json", found)  # all of it is JSON, and finite


def test_a_probe_needs_users_who_are_not_trained_on():
    everybody = populate(draw_users(20, 0), shares=dict.fromkeys(SHARES, 0.0), levels=2)
    with pytest.raises(InputError, match="users.splits leave no user to test the ban probe on"):
        summarize(everybody)


def test_the_plot_has_every_user_at_the_place_of_their_bans(population):
    plot = level_plot(population)
    assert len(plot) == 60
    assert {frozenset(point) for point in plot} == {frozenset({"x", "y", "level", "bans"})}
    places = {}
    for row, point in zip(population.rows, plot, strict=True):
        assert (point["level"], point["bans"]) == (row.level, len(banned_of(row)))
        places.setdefault(row.banned, set()).add((round(point["x"], 6), round(point["y"], 6)))
    assert all(len(some) == 1 for some in places.values())
    assert len({next(iter(some)) for some in places.values()}) > 2
