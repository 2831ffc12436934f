import pytest

from pipeline.cluster.plan import longest_chain, makespan, ways_to_the_end

# a and b first; c needs both, d only b; e needs c and d
SECONDS = {"a": 4.0, "b": 2.0, "c": 3.0, "d": 6.0, "e": 1.0}
BEFORE = {"a": (), "b": (), "c": ("a", "b"), "d": ("b",), "e": ("c", "d")}


def test_the_way_to_the_end_is_the_longest_chain():
    assert ways_to_the_end(SECONDS, BEFORE) == {"a": 8, "b": 9, "c": 4, "d": 7, "e": 1}
    assert longest_chain(SECONDS, BEFORE) == ["b", "d", "e"]


@pytest.mark.parametrize("workers, seconds", [
    (1, 16),  # one after another
    (2, 9),  # b then d, beside a then c, then e
    (8, 9),  # never shorter than b, d, e
])  # fmt: skip
def test_the_makespan_by_hand(workers, seconds):
    assert makespan(SECONDS, BEFORE, workers) == seconds


def test_a_stage_takes_as_much_as_it_asks_for_and_what_fits_goes_before_what_does_not():
    # of 4: a (3) first; d is next in urgency, but with 2 has no room beside it, so b (1) goes
    sizes = {"a": 3.0, "b": 1.0, "d": 2.0}
    seconds, alone = {"a": 4.0, "d": 3.0, "b": 2.0}, dict.fromkeys("abd", ())
    assert makespan(seconds, alone, 4, sizes) == 7
    assert makespan(seconds, alone, 6, sizes) == 4
    assert makespan(seconds, alone, 1, sizes) == 9  # one at a time, however small the room


def test_what_is_not_asked_for_is_done_already():
    assert makespan({"c": 3.0, "e": 1.0}, BEFORE, 2) == 4
    assert makespan({}, BEFORE, 1) == 0


def test_the_longest_way_goes_first():
    seconds = {"short": 1.0, "short2": 1.0, "long": 2.0}
    assert makespan(seconds, dict.fromkeys(seconds, ()), 2) == 2  # in dvc's order it would be 3
