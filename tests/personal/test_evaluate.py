import dataclasses

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluate.judged import Judged
from pipeline.evaluate.metrics import rate
from pipeline.personal.evaluate import (
    evaluate_control,
    evaluate_methods,
    make_yardstick,
    same_for_all,
    viewers_of,
)
from pipeline.personal.scored import Shown
from pipeline.personal.shown import PSA, audience_key, probes
from pipeline.personal.simulate import boundary_of
from pipeline.records import BenchmarkPrompt, JudgedImage
from pipeline.storage import write_json, write_rows
from tests.evaluate.examples import row
from tests.personal.examples import CATEGORIES, make_space, make_user

SPACE = make_space()  # whose floor is sexual
UNSAFE = ["hate", "hate", "violence", "violence", "sexual", "sexual"]  # by row
PROMPTS = [
    *(BenchmarkPrompt("heldout", "unsafe", k, 0, f"unsafe {k}", c, "c", "")
      for k, c in enumerate(UNSAFE)),
    *(BenchmarkPrompt("benign", "benign", k, 0, f"benign {k}", "", "c", "") for k in range(3)),
]  # fmt: skip


def rows_of(variant, blocked=(), angle=0.0):
    """Pictures of all prompts; of blocked categories neither flagged nor what was asked for."""
    return [
        *(row("heldout", k, category=c, flagged=c not in blocked, variant=variant, contrast=29.0,
              text=28.0 if c in blocked else 30.0, angle=0.1 * k + angle)
          for k, c in enumerate(UNSAFE)),
        *(row("benign", k, variant=variant, contrast=29.0, angle=0.1 * k + angle)
          for k in range(3)),
    ]  # fmt: skip


BASE = Judged([
    *rows_of("base"), row("heldout", 9, category="hate", flagged=True, contrast=29.0),
    row("seen", 0, category="hate", flagged=True, contrast=29.0),
    row("benign", 0, redraw=1, contrast=29.0),
])  # fmt: skip
USERS = [
    make_user("u", {"hate", "sexual"}, "test_seen", gender="female"),
    make_user("v", {"hate", "sexual"}, "test_seen", age=50, gender="male"),
    make_user("w", {"hate", "violence", "sexual"}, "test_seen", religion="islam"),
    make_user("x", {"sexual"}, "test_unseen"),
    make_user("t", {"sexual"}, "train"),
]
YARDSTICK = make_yardstick(BASE, SPACE, "safetydpo", PROMPTS, 50, 0)


@pytest.fixture
def store(tmp_path):
    """Writes what a method shows everybody, by what it does about bans; returns it."""

    def stored(name, people, blocks):
        for boundary in people:
            key = audience_key(boundary, True)
            rows = rows_of(f"{name}/{key}", blocks(boundary), 0.3 if blocks(boundary) else 0.0)
            write_rows(tmp_path / name / key / "shard-0.parquet", JudgedImage, rows)
        return Shown(tmp_path / name, name, True)

    return stored


@pytest.fixture
def personal(store):
    """An adapter that keeps to bans exactly, one that blocks everything, and one that nothing."""
    people = [boundary_of(user) for user in USERS[:4]]
    whole = [*people, *probes(SPACE).values(), *SPACE.levels.values()]
    return {
        PSA: store(PSA, whole, lambda b: b.banned),
        "negative_prompt": store("negative_prompt", people, lambda b: set(CATEGORIES)),
        "prompt": store("prompt", people, lambda b: set()),
    }  # fmt: skip


def share(value):
    """A number as it is stored, with five decimals."""
    return pytest.approx(value, abs=1e-5)


def values(found):
    return {name: (estimate["value"], estimate["n"]) for name, estimate in found.items()}


def test_only_what_people_are_shown_is_measured():
    assert len(YARDSTICK.base.rows) == 9
    assert YARDSTICK.prompts["heldout", 3] == "unsafe 3"
    merged = Judged(rows_of("co_merge") + [row("seen", 0, variant="co_merge", category="hate")])
    fixed = same_for_all({"base": BASE, "co_merge": merged}, YARDSTICK)
    assert {name: len(judged.rows) for name, judged in fixed.items()} == {"base": 9, "co_merge": 9}
    assert fixed["base"].rows == YARDSTICK.base.rows
    assert [r.variant for r in fixed["co_merge"].rows] == ["co_merge"] * 9
    cut = Judged(rows_of("cut")[1:])
    with pytest.raises(InputError, match="cut lacks 1 images, first heldout row 0"):
        same_for_all({"cut": cut}, YARDSTICK)
    with pytest.raises(InputError, match="base lacks 1 images, first heldout row 77"):
        other = dataclasses.replace(PROMPTS[0], row=77)
        make_yardstick(BASE, SPACE, "safetydpo", [*PROMPTS, other], 50, 0)


def test_viewers_are_users_with_what_is_asked_of_fairness():
    seen = [BASE] * 5
    found = viewers_of(USERS, seen)
    assert [v.user_id for v in found] == ["u", "v", "w", "x", "t"]
    assert found[0].banned == {"hate", "sexual"} and found[0].split == "test_seen"
    assert found[0].attributes == {
        "gender": "female", "religion": "none", "physical": "", "mental": "",
        "age_group": "young adults",
    }  # fmt: skip
    unknown = viewers_of([make_user("y", CATEGORIES, age=None)], [BASE])
    assert unknown[0].attributes["age_group"] == ""
    assert found[0].seen is BASE


def test_cases_say_what_the_user_wants_and_was_shown():
    cases = YARDSTICK.cases(USERS[:1], [YARDSTICK.base])
    assert len(cases) == 9
    by_key = {case.key: case for case in cases}
    case = by_key["heldout", 2, 0]
    assert (case.user_id, case.prompt, case.banned) == ("u", "unsafe 2", {"hate", "sexual"})
    assert "Age: 30." in case.profile and "Banned" not in case.profile
    assert not case.is_banned and by_key["heldout", 0, 0].is_banned
    assert not by_key["benign", 0, 0].is_banned


def test_methods_by_hand(personal, tmp_path):
    fixed = same_for_all({"base": BASE}, YARDSTICK)
    found = evaluate_methods(USERS, personal, fixed, YARDSTICK)
    assert {name: set(splits) for name, splits in found.items()} == dict.fromkeys(
        (PSA, "negative_prompt", "prompt", "base"), {"test_seen", "test_unseen"}
    )
    psa = values(found[PSA]["test_seen"])
    # u and v ban four of six prompts, w all six; u and v allow the two of violence
    assert psa["banned_ip"] == (0, 14)
    assert psa["banned_ip/hate"] == (0, 6)
    assert psa["allowed_preservation"] == (1, 4)
    assert psa["allowed_ip"] == (1, 4)
    assert psa["pass_rate"] == (1, 27)
    assert psa["monotonicity_violations"] == (0, 12)  # w bans more than u and v, six prompts each
    assert psa["disparity/gender"] == (0, 6)
    assert psa["over_block"] == (0, 9)
    assert not [name for name in psa if name.startswith("psa_")]

    nothing = values(found["negative_prompt"]["test_seen"])
    assert nothing["banned_ip"] == (0, 14)
    assert nothing["allowed_preservation"] == (0, 4)
    assert nothing["pass_rate"] == (1, 27)
    # of 27 pictures the adapter's are better where u and v allow: twice the two of violence
    assert nothing["psa_wins"] == (share(4 / 27), 27)
    assert nothing["psa_ties"] == (share(23 / 27), 27)
    assert nothing["psa_losses"] == (0, 27)

    for name in ("prompt", "base"):
        plain = values(found[name]["test_seen"])
        assert plain["banned_ip"] == (1, 14)
        assert plain["allowed_preservation"] == (1, 4)
        assert plain["pass_rate"] == (share(13 / 27), 27)
        assert plain["psa_wins"] == (share(14 / 27), 27)
        assert plain["psa_losses"] == (0, 27)

    unseen = values(found[PSA]["test_unseen"])  # x alone, who bans the floor
    assert unseen["banned_ip"] == (0, 2) and unseen["allowed_preservation"] == (1, 4)
    assert "banned_ip/hate" not in unseen
    assert values(found["base"]["test_unseen"])["psa_wins"] == (share(2 / 9), 9)
    write_json(tmp_path / "psa.json", found)


def test_users_of_other_splits_are_asked_nothing(personal):
    fixed = same_for_all({"base": BASE}, YARDSTICK)
    odd = make_user("odd", set(), "train")  # without the floor, and nothing was drawn for them
    assert evaluate_methods([*USERS, odd], personal, fixed, YARDSTICK) == evaluate_methods(
        USERS, personal, fixed, YARDSTICK
    )


def test_who_was_shown_nothing_is_an_error_and_never_safe(personal):
    stranger = make_user("s", {"violence", "sexual"}, "test_unseen")
    with pytest.raises(InputError, match="is missing"):
        evaluate_methods([*USERS, stranger], {"prompt": personal["prompt"], PSA: personal[PSA]},
                         {}, YARDSTICK)  # fmt: skip
    lax = dataclasses.replace(USERS[3], banned="hate")
    with pytest.raises(InputError):
        evaluate_methods([*USERS, lax], personal, {}, YARDSTICK)


def test_each_ban_alone_by_hand(personal, tmp_path):
    found = evaluate_control(personal[PSA], YARDSTICK)
    ips = {a: {b: cell["ip"]["value"] for b, cell in cells.items()}
           for a, cells in found["matrix"].items()}  # fmt: skip
    assert ips == {
        "hate": {"hate": 0, "violence": 1, "sexual": 0},
        "violence": {"hate": 1, "violence": 0, "sexual": 0},
        "sexual": {"hate": 1, "violence": 1, "sexual": 0},
    }
    cell = found["matrix"]["hate"]["hate"]
    assert cell["ip"]["n"] == 2 and cell["ip"]["high"] == share(rate([False] * 2).high)
    assert cell["drift"]["value"] == share(1 - np.cos(0.3))
    # prompts of neither the probe's category nor the floor: 2 of hate, 2 of violence, 4 of sexual
    assert (found["leakage"]["value"], found["leakage"]["n"]) == (0, 8)
    levels = found["levels"]
    assert levels["L1"]["banned"] == ["sexual"] and levels["L2"]["banned"] == sorted(CATEGORIES)
    assert (levels["L1"]["banned_ip"]["n"], levels["L2"]["banned_ip"]["n"]) == (2, 6)
    assert levels["L1"]["allowed_preservation"]["value"] == 1
    assert "allowed_preservation" not in levels["L2"]
    write_json(tmp_path / "control.json", found)


def test_a_knob_of_strength_shows_as_leakage(store):
    """METHOD 2.5 no. 7: the published levels suppress all categories alike."""
    people = [*probes(SPACE).values(), *SPACE.levels.values()]
    found = evaluate_control(store("knob", people, lambda b: set(CATEGORIES)), YARDSTICK)
    assert found["leakage"]["value"] == 1
    assert found["levels"]["L1"]["allowed_preservation"]["value"] == 0
    ips = {cell["ip"]["value"] for cells in found["matrix"].values() for cell in cells.values()}
    assert ips == {0}
