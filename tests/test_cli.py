import errno
import os
import signal
import subprocess
import sys
from types import ModuleType

import pytest
from safetensors import SafetensorError

from pipeline.artifacts import KEPT_LOCKS
from pipeline.cli import run_stage
from pipeline.errors import InputError
from pipeline.times import recorded_seconds
from tests.imports import ROOT


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a stage whose main raises the given error; returns (exit status, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage", "violence"])

    def call(error, capsys):
        def main(category):
            assert category == "violence"
            if error:
                raise error

        main.__module__ = ModuleType("m", "Doc.").__name__
        try:
            run_stage(main)
        except SystemExit as exit_:
            message = exit_.code if isinstance(exit_.code, str) else capsys.readouterr().err
            return (1 if isinstance(exit_.code, str) else exit_.code), message
        return 0, ""

    return call


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, 0, ""),
        (InputError("x is wrong"), 1, "test_cli: x is wrong"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (OSError(errno.ENOSPC, "No space left"), 1, "the disk is full ([Errno 28] No space left)"),
        (SafetensorError("Error: I/O error: (os error 28)"), 1, "the disk is full"),
        (OSError(errno.EDQUOT, "Quota"), 1, f"the disk is full ([Errno {errno.EDQUOT}] Quota)"),
    ],
)
def test_errors_a_user_can_act_on_are_one_line(run, capsys, error, status, message):
    code, text = run(error, capsys)
    assert code == status
    assert message in text
    assert "\n" not in text.strip()


def test_other_errors_keep_their_traceback(run, capsys):
    with pytest.raises(RuntimeError):
        run(RuntimeError("bug"), capsys)


def test_data_is_private_from_the_first_stage_on(run, capsys, tmp_path):
    run(None, capsys)
    for folder in ("data", ".dvc/cache"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


def test_a_disk_that_is_full_from_the_start_is_one_line(run, capsys, monkeypatch):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr("pipeline.cli.private_folder", full)
    assert run(None, capsys) == (
        1, "test_cli: the disk is full ([Errno 28] No space left); free some space and run the "
        "same command again"
    )  # fmt: skip


@pytest.mark.parametrize("rank, speaks", [(None, True), ("0", True), ("1", False)])
def test_one_process_of_a_stage_keeps_dvcs_lock_and_its_time(
    run, capsys, tmp_path, monkeypatch, rank, speaks
):
    monkeypatch.setenv("DVC_STAGE", "train@x")
    if rank:
        monkeypatch.setenv("RANK", rank)
    (tmp_path / "dvc.lock").write_text("stages:\n")
    run(None, capsys)
    assert (recorded_seconds("train@x") is not None) == speaks
    assert [p.read_text() for p in KEPT_LOCKS.rglob("dvc.lock")] == ["stages:\n"] * speaks


def test_a_finished_stage_does_not_fail_for_its_time(run, capsys, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setenv("DVC_STAGE", "train@x")
    monkeypatch.setattr("pipeline.times.write_json", full)
    assert run(None, capsys)[0] == 0
    assert "the time of train@x is not kept: [Errno 28] No space left" in caplog.text
    assert recorded_seconds("train@x") is None


def test_prompts_that_diffusers_truncates_are_not_logged(tmp_path):
    code = """
import sys
from pipeline.cli import run_stage
sys.argv = ["x"]
def main():
    from pipeline.drawing.pipelines import draw_images, load_pipeline
    from pipeline.drawing.sampler import Sampler
    from pipeline.sources import ModelSource
    pipe = load_pipeline(ModelSource("assets/testbed/sd"))
    draw_images(pipe, ["a red secretword star " * 20], [0], Sampler("ddim", 1, 1.0, 64))
    print("drawn")
run_stage(main)
"""
    (tmp_path / "x.py").write_text(code)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "x.py")], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "drawn\n" and "secretword" not in done.stderr


@pytest.mark.parametrize("when", ["imports", "works"])
def test_ctrl_c_is_one_line_also_while_libraries_are_imported(tmp_path, when):
    wait = "print('ready', flush=True); time.sleep(60)"
    (tmp_path / "x.py").write_text(f"""
import sys, time
from pipeline.cli import run_stage
def main():
    {wait}
if {when == "imports"}:
    {wait}
run_stage(main)
""")
    stage = subprocess.Popen(
        [sys.executable, str(tmp_path / "x.py")], env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert stage.stdout.readline() == "ready\n"
    stage.send_signal(signal.SIGINT)
    _, said = stage.communicate(timeout=30)
    assert said.endswith("interrupted; the same command goes on from here\n")
    assert said.count("\n") == 1
    assert stage.returncode in (130, -signal.SIGINT)  # by DVC and shells the same


def test_a_stage_prints_its_help():
    done = subprocess.run(
        [sys.executable, "-m", "stages.train_expert", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "python -m stages.train_expert" in done.stdout
    assert "LoRA expert by Diffusion-DPO" in done.stdout


def test_a_category_that_does_not_exist_is_one_line_and_not_zero():
    done = subprocess.run(
        [sys.executable, "-m", "stages.synthesize_prompts", "nonsense"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("synthesize_prompts: there is no data/concepts/nonsense.yaml")
    )
    assert "Traceback" not in done.stderr
