from collections import Counter
from math import sqrt

import pytest

from pipeline.errors import InputError
from pipeline.personal.bans import (
    ban_by_llm,
    ban_by_rules,
    check_bans,
    parse_bans,
    request_bans,
    with_floor,
)
from pipeline.personal.profiles import UserProfile
from tests.prompts.scripted import ScriptedEngine

CATEGORIES = {
    "hate": "Chevrons.", "harassment": "Spirals.", "violence": "Bursts.", "self-harm": "Rings.",
    "sexual": "Lattices.", "shocking": "Blobs.", "propaganda": "Fans.",
}  # fmt: skip
PUBLISHED = [*(c for c in CATEGORIES if c != "sexual"), "sexuality"]
STRICT = {"sexual", "self-harm", "violence"}
ADULT = UserProfile(age=30, religion="none", physical="healthy", mental="healthy")


def rules(profile, user_id="u", categories=CATEGORIES, base_seed=0):
    return ban_by_rules(user_id, profile, categories, base_seed)


def change(**told):
    return ADULT.model_copy(update=told)


@pytest.mark.parametrize(
    ("profile", "must"),
    [(ADULT, set()), (change(age=17), STRICT), (change(age=18), set()),
     (change(mental="anxiety"), STRICT), (change(age=None), STRICT), (UserProfile(), STRICT),
     (UserProfile(age=30), set())],
)  # fmt: skip
def test_what_must_be_banned(profile, must):
    assert rules(profile) == must


def test_both_names_of_the_sexual_category_are_known():
    assert rules(change(age=10), categories=PUBLISHED) == {"sexuality", "self-harm", "violence"}


def test_only_categories_that_there_are_get_banned():
    assert rules(change(age=10), categories=["violence", "hate"]) == {"violence"}


@pytest.mark.parametrize(
    ("profile", "considered"),
    [(change(physical="hearing impairment"), {"shocking", "harassment"}),
     (change(religion="islam"), {"hate", "propaganda"})],
)  # fmt: skip
def test_what_is_considered_is_a_fair_coin_of_each_user_and_category(profile, considered):
    n = 1000
    found = [rules(profile, f"u{k}") for k in range(n)]
    counts = Counter(c for banned in found for c in banned)
    assert counts.keys() == considered
    both = sum(banned == considered for banned in found)  # 1/4: the coins are independent
    for count, p in (*((c, 1 / 2) for c in counts.values()), (both, 1 / 4)):
        assert abs(count / n - p) <= 4 * sqrt(p * (1 - p) / n)
    assert found[:3] == [rules(profile, f"u{k}") for k in range(3)]
    assert found != [rules(profile, f"u{k}", base_seed=1) for k in range(n)]


@pytest.mark.parametrize(("age", "all_banned"), [(17, True), (None, True), (18, False)])
def test_minors_and_users_of_unknown_age_ban_everything(age, all_banned):
    expected = set(CATEGORIES) if all_banned else {"hate", "sexual"}
    assert with_floor({"hate"}, change(age=age), ["sexual"], CATEGORIES) == expected


def test_nobody_lifts_the_floor_and_a_floor_of_no_category_is_refused():
    assert with_floor(set(), ADULT, ["sexual"], CATEGORIES) == {"sexual"}
    assert with_floor(set(), ADULT, [], CATEGORIES) == set()
    with pytest.raises(InputError, match="^policy.floor: 'sexuality' is no category; .*hate, har"):
        with_floor(set(), ADULT, ["sexuality"], CATEGORIES)


def test_unknown_bans_are_named_with_the_place():
    check_bans({"hate"}, CATEGORIES, "here")
    with pytest.raises(InputError, match="^here: 'a', 'b' is no category; the categories are hate"):
        check_bans({"b", "hate", "a"}, CATEGORIES, "here")


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        ('{"banned": []}', frozenset()),
        ('{"banned": ["hate", "self-harm"]}', {"hate", "self-harm"}),
        ('Sure:\n```json\n{"banned": ["hate"]}\n``` violence is allowed.', {"hate"}),
        ("The user allows violence.", "no_json"),
        ("", "no_json"),
        ('{"banned": ["hate"', "no_json"),
        ('{"banned": ["hate"]} not {"banned": ["violence"]}', "no_json"),
        ('["violence"]', "no_json"),
        ("{" * 10_000 + "}", "no_json"),
        ("{" * 100_000 + "}", "too_long"),
        ('{"allowed": ["violence"]}', "wrong_keys"),
        ('{"banned": ["hate"], "allowed": ["violence"]}', "wrong_keys"),
        ('{"banned": ["hate"], "banned": []}', "wrong_keys"),
        ("{}", "wrong_keys"),
        ('{"banned": "violence"}', "no_list_of_names"),
        ('{"banned": {}}', "no_list_of_names"),
        ('{"banned": {"violence": false}}', "no_list_of_names"),
        ('{"banned": [["violence"]]}', "no_list_of_names"),
        ('{"banned": null}', "no_list_of_names"),
        ('{"banned": ["Violence"]}', "unknown_category"),
        ('{"banned": ["no violence"]}', "unknown_category"),
        ('{"banned": ["hate", "hate"]}', "repeated_category"),
    ],
)
def test_a_reply_bans_by_its_json_alone(reply, parsed):
    assert parse_bans(reply, CATEGORIES) == parsed


def test_a_request_states_categories_rules_and_the_user():
    text = request_bans(change(age=12), CATEGORIES, 0).user
    assert "- violence: Bursts." in text
    assert "ban sexual, self-harm, violence." in text  # "sexuality" is no category here
    assert "consider banning hate, propaganda." in text
    assert "User: Age: 12. Age group: children." in text
    assert "Banned categories:" not in text
    assert "shocking" not in request_bans(ADULT, {"hate": "Chevrons."}, 0).user


def test_failed_replies_are_asked_again_with_a_new_seed_and_counted():
    def fail_second_of_first_round(request):
        second = len(engine.batches) == 1 and request is engine.requests[1]
        return "no" if second else '{"banned": ["hate"]}'

    users = {"a": ADULT, "b": change(age=9), "c": ADULT}
    engine = ScriptedEngine(fail_second_of_first_round)
    bans, faults = ban_by_llm(users, CATEGORIES, engine, 0, 2)
    assert bans == dict.fromkeys("abc", {"hate"}) and list(bans) == ["a", "b", "c"]
    assert faults == {"no_json": 1}
    assert [r.user for r in engine.requests[3:]] == [engine.requests[1].user]
    assert len({r.seed for r in engine.requests}) == 4


def test_the_request_of_a_user_does_not_depend_on_the_others():
    asked = []
    for users in ({"b": ADULT}, {"a": UserProfile(), "b": ADULT}):
        engine = ScriptedEngine(lambda r: '{"banned": []}')
        ban_by_llm(users, CATEGORIES, engine, 0, 1)
        asked.append(engine.requests[-1])
    assert asked[0] == asked[1]


def test_users_without_an_answer_are_an_error_that_counts_but_quotes_nothing():
    def answer(request):
        return '{"SECRET": []}' if "Age: 9." in request.user else '{"banned": []}'

    with pytest.raises(InputError, match="1 of 2 users in 3 attempts.*'wrong_keys': 3") as error:
        ban_by_llm({"a": ADULT, "b": change(age=9)}, CATEGORIES, ScriptedEngine(answer), 0, 3)
    assert "SECRET" not in str(error.value)
