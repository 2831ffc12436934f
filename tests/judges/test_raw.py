from pipeline.judges.raw import find_lost, flat_scores, nested_scores, scores_by_image
from pipeline.records import Score

NESTED = {"clip": {"text": 1.0, "similarity": 2.0}, "zero_shot": {"self-harm": 3.0}}


def test_scores_lie_flat_in_files_and_come_back():
    flat = flat_scores(NESTED)
    assert flat == {"clip/text": 1.0, "clip/similarity": 2.0, "zero_shot/self-harm": 3.0}
    assert nested_scores(flat) == NESTED


def test_rows_become_a_table_by_image():
    rows = [Score(image, judge, "v", values) for image in "ab" for judge, values in NESTED.items()]
    assert scores_by_image(iter(rows)) == {"a": NESTED, "b": NESTED}


def test_a_score_is_lost_where_another_image_has_it():
    assert find_lost([{"a", "b"}, {"b", "a"}]) is None and find_lost([]) is None
    assert find_lost([{"a": 1.0, "b": 1.0}, {"b": 1.0}, {}]) == (1, "a")
    assert find_lost([{"b"}, {"c", "a", "b"}]) == (0, "a")
