import numpy as np
import pytest

from pipeline.personal.separability import ban_probe, cosine_spread, largest_dimension_share


def test_cosines_by_hand():
    """Pairs: parallel 1, orthogonal 0 twice; quantiles interpolate between 0, 0 and 1."""
    spread = cosine_spread(np.array([[1, 0], [3, 0], [0, 2]]))
    assert spread == pytest.approx({"mean": 1 / 3, "low": 0, "high": 0.9})


@pytest.mark.parametrize("vectors", [[[1, 0]], [[1, 0], [0, 0]]])
def test_cosines_need_two_vectors_with_a_direction(vectors):
    with pytest.raises(ValueError, match="none of length zero"):
        cosine_spread(np.array(vectors))


def test_energy_by_hand():
    assert largest_dimension_share(np.array([[3, 1], [3, -1]])) == pytest.approx(18 / 20)


def test_a_probe_reads_what_is_there_and_only_that():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 4)) + 5
    bans = [{"a"} if row[2] > 5 else set() for row in vectors]
    bans = [b | ({"b"} if rng.random() < 0.3 else set()) for b in bans]
    probe = ban_probe(vectors[:200], bans[:200], vectors[200:], bans[200:], ["a", "b"])
    assert probe["accuracy"]["a"] > 0.93
    assert probe["accuracy"]["b"] == pytest.approx(probe["majority"]["b"], abs=0.05)
    assert probe["majority"]["a"] < 0.65
    assert probe["mean_accuracy"] == pytest.approx(np.mean(list(probe["accuracy"].values())))


def test_the_probe_by_hand_is_ridge_regression_with_a_free_bias():
    """At -1, 1, 1 targets 0, 1, 1: about the means 1/3 and 2/3 the slope is
    4/3 / (8/3 + r * 8/9), so at -1 the readout is 2/3 - 4/3 * slope: 0 for r = 0, 1/2 for r = 9.
    """
    train, bans = np.array([[-1.0], [1.0], [1.0]]), [set(), {"a"}, {"a"}]
    for ridge, expected in ((1e-6, False), (8.9, False), (9.1, True), (1e9, True)):
        probe = ban_probe(train, bans, np.array([[-1.0]]), [{"a"}], ["a"], ridge)
        assert (probe["accuracy"]["a"] == 1) == expected


def test_vectors_that_are_all_alike_give_the_majority():
    ones = np.ones((4, 3))
    bans = [{"a"}, {"a"}, {"a"}, set()]
    probe = ban_probe(ones, bans, ones, bans, ["a"])
    assert probe["accuracy"] == probe["majority"] == {"a": 0.75}


def test_a_probe_does_not_depend_on_scale_or_offset():
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((60, 3))
    bans = [{"a"} if row.sum() > 0.3 else set() for row in vectors]
    results = [ban_probe(v[:40], bans[:40], v[40:], bans[40:], ["a"])
               for v in (vectors, 1000 * vectors + 7)]  # fmt: skip
    assert results[0] == results[1]
