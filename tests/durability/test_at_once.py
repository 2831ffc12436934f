"""Two runs in one checkout: one ends with a clear message, and nothing is damaged."""

from dvc.repo import Repo

from pipeline.hold import held
from tests.cluster.runs import lock
from tests.durability.conftest import STAGES, journal, repro, unmade
from tests.durability.halves import half_written
from tests.durability.tree import run, wait_until


def test_a_second_run_beside_dvc_repro_ends_and_says_why(made, project):
    unmade(project)
    (project / "hold").touch()
    first = repro(project)
    wait_until(lambda: bool(journal(project)), first)

    status, told = run(project, "dvc", "repro")
    assert status
    assert "is busy, it is being blocked by" in told
    assert f"(PID {first.pid})" in told

    status, told = run(project, "pipeline.cluster", "repro")
    assert (status, told.count("\n")) == (1, 1), told
    assert "another DVC command, or a stage of one, is at work here; wait for it" in told

    (project / "hold").unlink()
    status, log = first.end()
    assert status == 0, log
    assert sorted(journal(project)) == sorted(STAGES)
    assert lock(project) == lock(made)
    assert half_written(project) == []


def test_dvc_repro_beside_the_cluster_ends_and_says_why(project):
    """The cluster holds DVC's lock from its start to its end, as here."""
    (project / "in.txt").write_text("other\n")
    with Repo(str(project)) as repo, held(repo, "cluster"):
        status, told = run(project, "dvc", "repro")
    assert status
    assert "Unable to acquire lock. Most likely another DVC process is running" in told
    assert journal(project) == []


def test_nothing_is_mended_while_dvc_is_at_work(project):
    damaged = [project / "dvc.lock", project / ".dvc/tmp/rwlock"]
    for path in damaged:
        path.write_text("")
    with Repo(str(project)) as repo, repo.lock:
        status, told = run(project, "pipeline.mend")
    assert (status, told.count("\n")) == (1, 1), told
    assert told.startswith("mend: another DVC command, or a stage of one, is at work here")
    assert [path.read_text() for path in damaged] == ["", ""]
