import pytest
import torch

from pipeline.errors import InputError
from pipeline.personal.rows import PersonalRows, balanced, check_floor, check_rows
from pipeline.records import SAFE, UNSAFE, UserPair
from tests.personal.examples import CATEGORIES, FLOOR, make_space, make_user

USERS = {"u": 0, "v": 1, "w": 2}
RECORDS = [
    UserPair("v", "c", "violence", UNSAFE, SAFE), UserPair("u", "a", "hate", SAFE, SAFE),
    UserPair("w", "d", "sexual", UNSAFE, UNSAFE), UserPair("u", "b", "violence", SAFE, "base"),
]  # fmt: skip


def test_rows_are_positions_of_what_the_records_name(tiny_latents):
    rows = PersonalRows.of(RECORDS, USERS, tiny_latents, CATEGORIES)
    assert len(rows) == 4
    assert rows.users.tolist() == [1, 0, 2, 0]
    assert rows.pairs.tolist() == [2, 0, 3, 1]
    assert rows.prompts.tolist() == [7, 1, 8, 2]  # unsafe ones are 5 to 8, safe ones 1 to 4
    assert rows.categories.tolist() == [1, 0, 2, 1]
    assert rows.unsafe_caption.tolist() == [True, False, True, False]
    assert rows.unsafe_chosen.tolist() == [False, False, True, False]
    assert rows.to_base.tolist() == [False, False, False, True]


def test_some_rows_keep_what_belongs_together(tiny_latents):
    rows = PersonalRows.of(RECORDS, USERS, tiny_latents, CATEGORIES)
    some = rows.take(torch.tensor([2, 0, 2]))
    expected = PersonalRows.of([RECORDS[k] for k in (2, 0, 2)], USERS, tiny_latents, CATEGORIES)
    for name in PersonalRows.__dataclass_fields__:
        assert torch.equal(getattr(some, name), getattr(expected, name)), name


def test_no_records_are_no_rows(tiny_latents):
    rows = PersonalRows.of([], USERS, tiny_latents, CATEGORIES)
    assert len(rows) == 0
    assert len(balanced(torch.nonzero(~rows.to_base)[:, 0], rows.categories)) == 0


@pytest.mark.parametrize("record", [UserPair("u", "z", "hate", SAFE, SAFE),
                                    UserPair("x", "a", "hate", SAFE, SAFE)])  # fmt: skip
def test_a_user_or_pair_that_is_not_there_is_named_and_never_replaced(tiny_latents, record):
    """METHOD 2.5 no. 8: the published code took another one, or zeros."""
    fault = f"user {record.user_id} has pair {record.pair_id}, of which one is not there"
    with pytest.raises(InputError, match=fault):
        PersonalRows.of([*RECORDS, record], USERS, tiny_latents, CATEGORIES)
    check_rows(RECORDS, USERS, tiny_latents.pair_ids)
    with pytest.raises(InputError, match=fault):
        check_rows([*RECORDS, record], USERS, tiny_latents.pair_ids)


@pytest.mark.parametrize(
    ("age", "category", "refused"),
    [(30, next(iter(FLOOR)), True), (30, "violence", False), (17, "violence", True),
     (None, "violence", True)],
)  # fmt: skip
def test_nobody_is_taught_to_prefer_what_the_policy_bans_for_them(age, category, refused):
    """METHOD 3, at the place where it is taught: whoever wrote the rows."""
    assert category not in FLOOR or age == 30
    space, users = make_space(), [make_user("u", age=age)]
    check_floor([UserPair("u", "a", category, UNSAFE, SAFE)], users, space)
    row = UserPair("u", "a", category, UNSAFE, UNSAFE)
    if not refused:
        return check_floor([row], users, space)
    with pytest.raises(InputError, match=rf"user u .* unsafe image of {category} \(pair a\)"):
        check_floor([row], users, space)


def test_rows_of_rare_categories_are_repeated():
    categories = torch.tensor([0] * 6 + [1] * 2 + [2] * 4 + [1])
    rows = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])  # not all of them are preferences
    found = balanced(rows, categories).tolist()
    assert set(found) == set(rows.tolist())
    counts = {row: found.count(row) for row in found}
    assert counts == dict.fromkeys(range(6), 1) | {6: 3, 7: 3} | dict.fromkeys((8, 9, 10), 2)
    even = torch.arange(4)
    assert sorted(balanced(even, torch.tensor([0, 0, 1, 1])).tolist()) == [0, 1, 2, 3]
