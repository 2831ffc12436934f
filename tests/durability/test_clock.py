"""A clock that was wrong: no file's time decides anything."""

from tests.cluster.runs import lock
from tests.durability.conftest import STAGES, journal, set_times
from tests.durability.tree import run

YEAR = 365 * 24 * 3600


def test_nothing_runs_again_under_another_clock_and_what_changed_does(made, project):
    set_times(project, 30 * YEAR)  # 1999
    status, told = run(project, "dvc", "repro")
    assert (status, journal(project)) == (0, []), told
    assert lock(project) == lock(made)
    (project / "in.txt").write_text("other\n")
    set_times(project, 130 * YEAR)
    status, told = run(project, "dvc", "repro")
    assert status == 0, told
    assert sorted(journal(project)) == sorted(STAGES)
