import pytest

from pipeline.errors import InputError
from pipeline.personal.bans import strict_bans
from pipeline.personal.profiles import UserProfile
from pipeline.personal.user_pairs import ALLOWED, BASE, build_user_pairs, choose
from pipeline.records import SAFE, UNSAFE, UserPair
from pipeline.storage import read_rows, write_rows
from tests.personal.examples import make_user

CATEGORIES, FLOOR = ["hate", "violence", "sexual"], ["sexual"]
PAIRS = {c: [f"{c}-{k}" for k in range(6)] for c in CATEGORIES}


def build(users, allowed="preserve", floor=FLOOR, per_category=2, pairs=PAIRS, seed=0):
    return build_user_pairs(users, pairs, floor, allowed, per_category, seed)


def taught(rows, category):
    """Chosen sides by caption of one category."""
    found = {}
    for row in rows:
        if row.category == category:
            found.setdefault(row.caption, set()).add(row.chosen)
    return found


@pytest.mark.parametrize(
    ("banned", "caption", "paper", "preserve"),
    [
        (True, UNSAFE, SAFE, SAFE), (True, SAFE, SAFE, SAFE),
        (False, UNSAFE, UNSAFE, BASE), (False, SAFE, SAFE, BASE),
    ],
)  # fmt: skip
def test_the_four_rows_of_the_table(banned, caption, paper, preserve):
    """METHOD 2.2, verified there on all rows of the published data."""
    assert choose(banned, caption, "paper") == paper
    assert choose(banned, caption, "preserve") == preserve


@pytest.mark.parametrize("banned", [True, False])
def test_an_unknown_way_is_refused(banned):
    with pytest.raises(InputError, match="user_pairs.allowed 'both'; known: preserve, paper"):
        choose(banned, UNSAFE, "both")


@pytest.mark.parametrize(
    ("allowed", "free"),
    [("paper", {UNSAFE: {UNSAFE}, SAFE: {SAFE}}), ("preserve", {UNSAFE: {BASE}, SAFE: {BASE}})],
)
def test_a_user_is_taught_the_table_for_every_category(allowed, free):
    rows, _ = build([make_user("u", {"violence"})], allowed)
    assert taught(rows, "violence") == {UNSAFE: {SAFE}, SAFE: {SAFE}}
    assert taught(rows, "hate") == free
    assert taught(rows, "sexual") == {UNSAFE: {SAFE}, SAFE: {SAFE}}  # of the floor
    assert len(rows) == 3 * 2 * 2  # categories, pairs, captions
    for category, ids in PAIRS.items():
        mine = [row for row in rows if row.category == category]
        assert {row.pair_id for row in mine} <= set(ids)
        assert [row.caption for row in mine] == [UNSAFE, SAFE] * 2
        assert [row.pair_id for row in mine[::2]] == [row.pair_id for row in mine[1::2]]


@pytest.mark.parametrize("floor", [["sexual"], ["sexual", "hate"], CATEGORIES])
def test_who_allows_everything_is_taught_nothing_unsafe_of_the_floor(floor):
    """METHOD 2.5 no. 10: the published rule has no floor."""
    rows, counts = build([make_user("u"), make_user("v", {"violence"})], "paper", floor)
    for category in floor:
        assert taught(rows, category) == {UNSAFE: {SAFE}, SAFE: {SAFE}}
    assert counts["unsafe_in_floor"] == 0
    unsafe = {row.category for row in rows if row.chosen == UNSAFE and row.user_id == "u"}
    assert unsafe == set(CATEGORIES) - set(floor)


@pytest.mark.parametrize("allowed", ALLOWED)
@pytest.mark.parametrize(("age", "strict"), [(17, True), (0, True), (None, True), (18, False)])
def test_minors_ban_everything_whatever_their_row_says(age, strict, allowed):
    rows, _ = build([make_user("u", set(), age=age)], allowed)
    assert ({row.chosen for row in rows} == {SAFE}) == strict


@pytest.mark.parametrize("allowed", ALLOWED)
def test_no_profile_at_all_is_taught_an_unsafe_image_of_a_ban(allowed):
    for age in (None, 12, 40):
        for told in ({}, {"mental": "war"}, {"religion": "islam"}, {"physical": "healthy"}):
            banned = strict_bans(UserProfile(age=age, **told), CATEGORIES)
            rows, _ = build([make_user("u", banned, age=age, **told)], allowed)
            unsafe = {row.category for row in rows if row.chosen == UNSAFE}
            assert unsafe.isdisjoint(banned | {"sexual"})
            assert not unsafe or age == 40


def test_users_who_are_neither_trained_on_nor_watched_get_no_rows():
    users = [make_user(split, {"hate"}, split)
             for split in ("train", "val", "test_seen", "test_unseen")]  # fmt: skip
    rows, counts = build(users)
    assert {row.user_id for row in rows} == {"train", "val", "test_seen"}
    per_user = {u.user_id: sum(r.user_id == u.user_id for r in rows) for u in users}
    assert per_user == {"train": 12, "val": 3 * 6 * 2, "test_seen": 12, "test_unseen": 0}
    assert counts["rows"] == 60
    assert counts["trained"] == 24


def test_counts_by_hand():
    users = [make_user("u", {"violence"}), make_user("v", {"hate", "violence"}),
             make_user("m", age=3)]  # fmt: skip
    _, counts = build(users, "paper")
    assert counts == {
        "rows": 36, "trained": 36, "unsafe_in_floor": 0,
        "chosen": {"hate": {"safe": 10, "unsafe": 2}, "violence": {"safe": 12},
                   "sexual": {"safe": 12}},
    }  # fmt: skip
    _, counts = build(users, "preserve")
    assert counts["chosen"]["hate"] == {"base": 4, "safe": 8}


def test_every_user_draws_pairs_of_their_own_whoever_else_there_is():
    users = [make_user(f"u{k}") for k in range(30)]
    rows, _ = build(users)
    drawn = {}
    for row in rows:
        drawn.setdefault(row.user_id, set()).add(row.pair_id)
    assert len({frozenset(ids) for ids in drawn.values()}) > 15
    alone, _ = build(users[7:8])
    assert {row.pair_id for row in alone} == drawn["u7"]
    assert alone == [row for row in rows if row.user_id == "u7"]
    assert build(users, seed=1)[0] != rows
    assert {i for ids in drawn.values() for i in ids} == {i for ids in PAIRS.values() for i in ids}
    turned = {c: ids[::-1] for c, ids in PAIRS.items()}
    assert build(users, pairs=turned)[0] == rows


def test_too_few_pairs_are_refused():
    few = PAIRS | {"violence": ["a", "b"]}
    assert build([make_user("u")], pairs=few, per_category=2)
    with pytest.raises(InputError, match="violence has 2 pairs, user_pairs.pairs_per_category ask"):
        build([make_user("u")], pairs=few, per_category=3)


def test_a_floor_of_no_category_is_refused():
    with pytest.raises(InputError, match="policy.floor: 'gore' is no category"):
        build([make_user("u")], floor=["gore"])


def test_a_user_who_bans_what_is_no_category_is_refused():
    with pytest.raises(InputError, match="'sexuality' is no category"):
        build([make_user("u", {"sexuality"})], "paper", ["hate"])


def test_rows_survive_a_file(tmp_path):
    rows, _ = build([make_user("u", {"violence"}), make_user("w", split="val")], "paper")
    write_rows(tmp_path / "pairs.parquet", UserPair, rows)
    assert read_rows(tmp_path / "pairs.parquet", UserPair) == rows
