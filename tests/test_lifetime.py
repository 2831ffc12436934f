import os
import shutil
import subprocess
import sys

import psutil
import pytest

from tests.imports import ROOT

STAGE = """
import os, sys, time
from pipeline.lifetime import end_with_dvc
end_with_dvc()
print(os.getpid(), flush=True)
time.sleep(600)
"""
# starts a stage as DVC does, maybe through others, says nothing and waits
DVC = """
import os, subprocess, sys
subprocess.Popen(sys.argv[1:], env=os.environ | {"DVC_STAGE": "train@x"}).wait()
"""
LAUNCHER = "import subprocess, sys; subprocess.Popen(sys.argv[1:]).wait()"


def shell(name: str) -> list[str]:
    return [name, "-c", f'{sys.executable} -c "$0"; true', STAGE]


@pytest.mark.parametrize("command", [
    [sys.executable, "-c", STAGE],
    shell("sh"),
    shell("bash"),
    [sys.executable, "-c", LAUNCHER, *shell("sh")],
], ids=["alone", "sh", "bash", "launcher"])  # fmt: skip
def test_a_stage_ends_with_dvc_whatever_is_between(command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    dvc = subprocess.Popen(
        [sys.executable, "-c", DVC, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    stage = psutil.Process(int(dvc.stdout.readline()))
    between = psutil.Process(dvc.pid).children(recursive=True)
    dvc.kill()  # and nobody looks at how it ended: it stays, as a zombie
    psutil.wait_procs([stage, *between], timeout=20)
    assert not stage.is_running()
    assert not any(process.is_running() for process in between)
    assert psutil.Process(dvc.pid).status() == psutil.STATUS_ZOMBIE
    dvc.wait()
    dvc.stdout.close()


def test_what_was_started_by_hand_lives_on():
    shell = subprocess.Popen(
        ["sh", "-c", 'nohup "$0" -c "$1" & wait', sys.executable, STAGE],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "DVC_STAGE"},
    )  # fmt: skip
    stage = psutil.Process(int(shell.stdout.readline()))
    shell.kill()
    shell.wait()
    with pytest.raises(psutil.TimeoutExpired):
        stage.wait(0.5)
    stage.kill()
    shell.stdout.close()
