"""What a watcher is shown while a run goes on."""

from types import SimpleNamespace

import pytest

from pipeline.cluster.board import Word, last_line, tail
from pipeline.cluster.repro import Report
from pipeline.cluster.show import Watch, show_plan, span, stage_of

BEFORE = {"draw": (), "judge": ("draw",), "write": ()}
EXPECTED = {"draw": 60.0, "judge": 30.0, "write": 20.0}
ONE_EACH = dict.fromkeys(BEFORE, 1.0)


def ended(seconds):
    return SimpleNamespace(seconds=seconds, node="near")


@pytest.mark.parametrize("label, stage", [
    ("draw", "draw"), ("draw@hate", "draw@hate"), ("draw@hate:2/4", "draw@hate"),
    ("studies/dvc.yaml:trace@ties", "studies/dvc.yaml:trace@ties"),
    ("studies/dvc.yaml:trace@ties:1/2", "studies/dvc.yaml:trace@ties"),
])  # fmt: skip
def test_a_shards_label_tells_its_stage(label, stage):
    assert stage_of(label) == stage


def test_spans_by_hand():
    assert [span(s) for s in (0, 59.6, 61, 3600, 3725)] == [
        "0:00", "1:00", "1:01", "1:00:00", "1:02:05"
    ]  # fmt: skip


def test_what_is_left_counts_what_a_worker_has_done_and_not_how_long_a_stage_waited():
    watch, report = Watch(BEFORE, EXPECTED, 2, ONE_EACH), Report()
    assert watch.left({}, report) == 90  # draw, then judge; write beside
    assert watch.left({"draw": Word("near", "", 20.0), "write": None}, report) == 70
    shards = {"draw:1/2": Word("near", "", 20.0), "draw:2/2": Word("far", "", 15.0)}
    assert watch.left(shards, report) == 75
    report.ran["draw"] = ended(61)
    assert watch.left({}, report) == 30
    report.failed["judge"] = "why"
    assert watch.left({}, report) == 20


def test_stages_that_take_all_of_a_node_go_one_after_the_other():
    watch = Watch(BEFORE, EXPECTED, 2, dict.fromkeys(BEFORE, 2.0))
    assert watch.left({}, Report()) == 110


def test_lines_where_there_is_no_terminal_say_each_thing_once(capsys):
    with Watch(BEFORE, EXPECTED, 2, ONE_EACH) as watch:
        report = Report()
        running = {"draw:1/2": Word("far", "", 0.0), "write": None}
        watch(running, report)
        watch(running, report)
        report.shards["draw:1/2"] = ended(4)
        report.failed["write"] = "why"
        watch({}, report)
    assert capsys.readouterr().out.splitlines() == [
        "draw:1/2: started on far", "draw:1/2: done in 4 s on near", "write: FAILED"
    ]  # fmt: skip


def test_a_table_names_where_a_stage_is_and_its_last_word():
    from rich.console import Console

    watch, report = Watch(BEFORE, EXPECTED, 2, ONE_EACH), Report(unchanged=["draw"])
    table = watch._table({"judge": Word("far", "7 of 9", 5.0), "write": None}, report)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    text = capture.get()
    assert "1 of 3 stages up to date, about 0:25 to go" in text
    assert "far" in text and "7 of 9" in text and "waits" in text


def test_the_last_line_is_the_last_of_a_progress_bar(tmp_path):
    log = tmp_path / "log.txt"
    assert last_line(log) == ""
    log.write_text("first\ndraw: 1 of 3\rdraw: 2 of 3\n\n")
    assert last_line(log) == "draw: 2 of 3"
    assert tail("a\n1\r2") == "a\n2"


def test_a_plan_tells_what_would_run_what_it_takes_and_what_bounds_it():
    text = show_plan(EXPECTED, BEFORE, ["write"])
    for line in (
        "     60  draw", "     20? write", "? 1 never ran here: taken for as long as the others",
        "      1      110  1.0", "      2       90  1.2",
        "no number of workers makes it shorter than 90 s: draw -> judge",
    ):  # fmt: skip
        assert line in text
    assert show_plan({}, BEFORE, []) == "Everything is up to date."
