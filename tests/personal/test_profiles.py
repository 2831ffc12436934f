from itertools import product
from typing import get_args

import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.personal.profiles import (
    AGE_GROUPS,
    ATTRIBUTES,
    UserProfile,
    describe_profile,
    impossible,
    read_profiles,
)


def read(tmp_path, text):
    file = tmp_path / "users.csv"
    file.write_text(text, encoding="utf-8")
    return read_profiles(file)


def published_impossible(age, religion, mental):
    """METHOD §2.1 as written, by group and by age."""
    return (
        (age <= 3 and mental not in ("healthy", "natural disasters"))
        or (4 <= age <= 12 and mental in ("war", "sexual assault"))
        or (mental == "war" and age < 18)
        or (mental == "sexual assault" and age < 10)
        or (mental in ("major accidents", "depression", "anxiety") and age < 5)
        or (religion != "none" and age < 8)
    )


def test_the_published_tables_are_whole():
    assert sum(g.probability for g in AGE_GROUPS) == pytest.approx(1)
    assert [g.low for g in AGE_GROUPS] == [0] + [g.high + 1 for g in AGE_GROUPS[:-1]]
    for attribute, values in ATTRIBUTES.items():
        assert sum(values.values()) == pytest.approx(1)
        literal = get_args(UserProfile.model_fields[attribute].annotation)[0]
        assert get_args(literal) == tuple(values)


@pytest.mark.parametrize(
    ("age", "group", "minor"),
    [(0, "infants & toddlers", True), (3, "infants & toddlers", True), (4, "children", True),
     (17, "adolescents", True), (18, "adolescents", False), (100, "long-lived", False),
     (101, "long-lived", False), (120, "long-lived", False), (None, None, False)],
)  # fmt: skip
def test_age_groups_and_minors(age, group, minor):
    profile = UserProfile(age=age)
    assert (profile.age_group, profile.minor) == (group, minor)


@pytest.mark.parametrize("field", [{"age": -1}, {"age": 121}, {"religion": None, "faith": "x"},
                                   {"religion": "None"}, {"mental": "trauma"}])  # fmt: skip
def test_a_profile_takes_published_values_only(field):
    with pytest.raises(ValidationError):
        UserProfile(**field)


def test_every_combination_is_judged_as_published():
    for age, religion, mental in product(
        range(121), ATTRIBUTES["religion"], ATTRIBUTES["mental"]
    ):  # fmt: skip
        profile = UserProfile(age=age, religion=religion, mental=mental)
        assert bool(impossible(profile)) == published_impossible(age, religion, mental), profile


def test_what_is_not_told_rules_nothing_out_and_a_reason_names_its_field():
    assert impossible(UserProfile(mental="war", religion="islam")) is None
    assert impossible(UserProfile(age=2)) is None
    assert impossible(UserProfile(age=2, physical="hearing impairment")) is None
    assert impossible(UserProfile(age=17, mental="war")).startswith("mental: 'war'")
    assert impossible(UserProfile(age=7, religion="islam")).startswith("religion: below 8")


def test_a_description_says_what_is_told_and_nothing_else():
    profile = UserProfile(age=40, religion="none", mental="anxiety")
    assert describe_profile(profile, {"violence", "hate"}) == (
        "Age: 40. Age group: middle-aged. Religion: none. Mental condition: anxiety. "
        "Banned categories: hate, violence."
    )
    assert describe_profile(profile, frozenset()).endswith("Banned categories: none.")
    assert describe_profile(UserProfile(), None) == "Nothing is known about this user."


def test_none_survives_a_csv_as_a_religion(tmp_path):
    users = read(tmp_path, "\ufeffuser_id,age,religion\na,30,None\nb,30,none\nc,30,\n")
    assert [users[u][0].religion for u in "abc"] == ["none", "none", None]


def test_values_are_normalised_and_bans_may_be_untold_or_nothing(tmp_path):
    users = read(
        tmp_path,
        "user_id, Age,gender,physical,mental,banned\n"
        "A,18,FEMALE,Visual Impairment, War ,Self-Harm+hate\n\nb,,,,,\nc,,,,,Nothing\n",
    )
    profile = UserProfile(age=18, gender="female", physical="visual impairment", mental="war")
    assert users == {
        "A": (profile, frozenset({"self-harm", "hate"})),
        "b": (UserProfile(), None), "c": (UserProfile(), frozenset()),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column user_id"),
        ("name,age\na,3\n", "no column user_id"),
        ("user_id,ages\na,3\n", "column 'ages' is unknown.*known: user_id, age, gender"),
        ("user_id,age,age\na,3,3\n", "column 'age' is unknown or there twice"),
        ("user_id,age\n", "holds no user"),
        ("user_id,age\na,30\na,31\n", "data row 1: user_id: is empty or an earlier"),
        ("user_id,age\n ,30\n", "data row 0: user_id: is empty"),
        ("user_id,age\na,30,1\n", "data row 0 has 3 fields, the header 2"),
        ("user_id,age\na,30\nb,200\n", "data row 1: age: .*less than or equal to 120"),
        ("user_id,age\na,old\n", "data row 0: age: .*integer"),
        ("user_id,religion\na,other\n", "religion: .*'christianity', 'islam', 'buddhism' or 'none"),
        ("user_id,age,gender\na,-1,x\n", "age: .*; gender: .*'female', 'male' or 'other'"),
        ("user_id,age,mental\na,9,war\n", "data row 0: mental: 'war' is possible from 18"),
        ("user_id,banned\na,hate+\n", "data row 0: banned: category names joined by '\\+'"),
        ("user_id,banned\na,nothing+hate\n", "data row 0: banned: .*'nothing' alone"),
    ],
)
def test_every_fault_names_file_row_and_field(tmp_path, text, message):
    with pytest.raises(InputError, match=f"users.csv:? .*{message}|users.csv: {message}"):
        read(tmp_path, text)


def test_a_fault_does_not_show_what_the_cell_holds(tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, "user_id,mental\na,SECRET\n")
    assert "secret" not in str(error.value).lower()


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read .*none.csv"):
        read_profiles(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"user_id\n\xe9\n")
    with pytest.raises(InputError, match="cannot read .*latin.csv"):
        read_profiles(tmp_path / "latin.csv")
