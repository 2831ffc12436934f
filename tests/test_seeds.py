import pytest

from pipeline.seeds import content_id, seed_for


def test_ids_depend_on_every_part_and_on_their_borders():
    assert content_id("ab", "c") != content_id("a", "bc")
    assert content_id(1) != content_id("1")
    assert content_id({"x": 1, "y": 2}) == content_id({"y": 2, "x": 1})


def test_ids_are_stable_across_runs():
    assert content_id("a", 1) == "135f17a475a61afd"


def test_seeds_fit_every_generator():
    seeds = {seed_for(0, "image", k) for k in range(200)}
    assert len(seeds) == 200
    assert all(0 <= s < 2**31 for s in seeds)


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError):
        content_id(object())
