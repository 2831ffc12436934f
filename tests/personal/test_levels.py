import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.personal.levels import make_levels, project

# three clusters on a line around 0, 10 and 20; the middle one bans most
POINTS = np.array([[20, 0], [0, 0], [10, 0], [1, 0], [11, 0], [21, 0], [2, 0], [12, 0]])
BANS = [{"a"}, set(), {"a", "b", "c"}, set(), {"a", "b"}, {"b"}, {"c"}, {"a", "b", "c"}]


def test_levels_by_hand():
    """Members 0-2: L1 with 1/3 ban; 20, 21: L2 with 1; 10-12: L3 with 8/3."""
    made = make_levels(POINTS, BANS, count=3, seed=0)
    assert [level.name for level in made.levels] == ["L1", "L2", "L3"]
    assert [level.members for level in made.levels] == [(1, 3, 6), (0, 5), (2, 4, 7)]
    assert [level.representative for level in made.levels] == [3, 0, 4]  # 20 and 21 tie
    assert [level.representative_bans for level in made.levels] == [0, 1, 2]
    assert [level.mean_bans for level in made.levels] == pytest.approx([1 / 3, 1, 8 / 3])
    assert made.levels[1].ban_shares == {"a": 0.5, "b": 0.5}
    assert made.levels[2].ban_shares == pytest.approx({"a": 1, "b": 1, "c": 2 / 3})
    assert made.inertia == pytest.approx(2 + 2 + 0.5)


@pytest.fixture(scope="module")
def cloud():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 6)).astype(np.float32)
    return vectors, [set("abcdefg"[: k % 8]) for k in range(200)]


def test_five_levels_hold_every_user_once_and_grow_stricter(cloud):
    made = make_levels(*cloud, seed=3)
    assert [level.name for level in made.levels] == ["L1", "L2", "L3", "L4", "L5"]
    assert sorted(m for level in made.levels for m in level.members) == list(range(200))
    assert all(level.representative in level.members for level in made.levels)
    means = [level.mean_bans for level in made.levels]
    assert means == sorted(means)


def test_the_same_seed_gives_the_same_levels(cloud):
    assert make_levels(*cloud, seed=3) == make_levels(*cloud, seed=3)


def test_repeated_users_are_no_levels_of_their_own():
    with pytest.raises(InputError, match="5 users have 2 distinct vectors, too few for 3 levels"):
        make_levels(np.array([[0], [1], [1], [0], [1]]), [set()] * 5, count=3, seed=0)
    made = make_levels(np.array([[0], [1], [1], [0], [1]]), [set()] * 5, count=2, seed=0)
    assert [level.members for level in made.levels] == [(0, 3), (1, 2, 4)]


def test_a_projection_by_hand():
    """Variance is largest along y, then along x; both axes point up."""
    points = np.array([[1, 4, 0], [-1, 4, 0], [1, -4, 0], [-1, -4, 0]]) + 7
    np.testing.assert_allclose(project(points), [[4, 1], [4, -1], [-4, 1], [-4, -1]], atol=1e-12)


def test_a_projection_keeps_its_signs_when_rows_change_places(cloud):
    vectors = cloud[0]
    np.testing.assert_allclose(project(vectors[::-1])[::-1], project(vectors), atol=1e-9)


def test_a_plane_needs_two_axes():
    with pytest.raises(ValueError, match=r"\(1, 6\)"):
        project(np.zeros((1, 6)))
