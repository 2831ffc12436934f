"""A stage cut into shards ends as it would have in one piece."""

import yaml

from pipeline.cluster.connect import Needs
from tests.cluster.runs import is_up_to_date, lock, run, serially

DRAW = """
import pathlib, sys
folder, notes = pathlib.Path("data/drawn"), pathlib.Path(".checkpoints/notes")
number, count = map(int, (sys.argv[2] if len(sys.argv) > 2 else "1/1").split("/"))  # of --shard
text = pathlib.Path("in.txt").read_text()
for k in range(number - 1, 5, count):
    file, note = folder / f"{k}.txt", notes / f"{k}.txt"
    if not file.exists() or file.read_text() != f"{text}{k}":
        print("draws", k)
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}{k}")
    if count > 1:
        notes.mkdir(parents=True, exist_ok=True)
        note.write_text("seen")
    print("noted" if note.exists() else "new", k)
"""


def cut(project):
    (project / "draw.py").write_text(DRAW)
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"draw": {
        "cmd": "python draw.py", "deps": ["draw.py", "in.txt"],
        "outs": [{"data/drawn": {"persist": True}}],
    }}}))  # fmt: skip
    return {"draw": Needs(shards=2)}


def drawn(log):
    return [line.split()[1] for line in log.splitlines() if line.startswith("draws")]


def test_shards_draw_their_part_and_the_stage_finds_all_of_it(project, cluster):
    needs = cut(project)
    serial = serially(project)
    report = run(project, needs=needs)
    logs = {label: drawn(piece.log) for label, piece in report.shards.items()}
    assert logs == {"draw:1/2": ["0", "2", "4"], "draw:2/2": ["1", "3"]}
    assert drawn(report.ran["draw"].log) == []
    # what stages keep aside of their outputs comes along, too
    assert "new" not in report.ran["draw"].log
    assert lock(project) == lock(serial)
    assert is_up_to_date(project)


def test_what_was_drawn_before_does_not_undo_another_shards_work(project, cluster):
    needs = cut(project)
    run(project, needs=needs)
    (project / "in.txt").write_text("other\n")  # every shard finds all files of the old text
    report = run(project, needs=needs)
    assert drawn(report.ran["draw"].log) == []
    assert {f.read_text() for f in (project / "data/drawn").iterdir()} == {
        f"other\n{k}" for k in range(5)
    }


def test_a_shard_that_fails_fails_the_stage(project, cluster):
    needs = cut(project)
    with (project / "draw.py").open("a") as file:
        file.write("\nif number == 2: raise SystemExit('the second cannot')\n")
    report = run(project, needs=needs)
    assert "the second cannot" in report.failed["draw"]
    assert not report.ran


def test_what_a_shard_drew_before_its_worker_was_killed_is_part_of_its_piece(project, cluster):
    needs = cut(project)
    dies = """
if number == 1 and count > 1 and not pathlib.Path("died").exists():
    pathlib.Path("died").touch()
    os.kill(os.getppid(), 9)
    time.sleep(60)
"""
    text = DRAW.replace("import pathlib, sys", "import os, pathlib, sys, time") + dies
    (project / "draw.py").write_text(text)
    report = run(project, needs=needs)
    assert drawn(report.shards["draw:1/2"].log) == ["0", "2", "4"]  # the log goes on, too
    assert drawn(report.ran["draw"].log) == []
