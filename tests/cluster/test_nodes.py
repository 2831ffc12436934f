"""Two nodes that share no folder, one of which dies; and nodes that are not like this machine."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from pipeline.artifacts import PARAMS
from pipeline.cluster.node import MISSING, Node, check_alike, direct_libraries, look, signed
from pipeline.cluster.order import Place
from pipeline.errors import InputError
from tests.cluster.runs import is_up_to_date, lock, serially
from tests.conftest import S3_SETTINGS
from tests.imports import ROOT

PATIENCE = 120
# waits on the node that started it first, and says which that is
WAITS = """
import os, pathlib, sys, time
meet, home = pathlib.Path(os.environ["MEET"]), os.environ["CLUSTER_HOME"]
mark = meet / f"{pathlib.Path(sys.argv[2]).name}-{pathlib.Path(home).name}"
mark.with_suffix(".half").write_text(str(os.getpid()))
mark.with_suffix(".half").rename(mark)
while not (meet / "go").exists():
    time.sleep(0.1)
"""


@pytest.fixture
def nodes(tmp_path):
    """Two raylets with folders of their own, and a function that kills the second."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    (tmp_path / "meet").mkdir()
    shared = S3_SETTINGS | {"PYTHONPATH": str(ROOT), "MEET": str(tmp_path / "meet")}
    cluster = cluster_utils.Cluster()
    try:
        added = [
            cluster.add_node(num_cpus=1, env_vars=shared | {"CLUSTER_HOME": str(tmp_path / name)})
            for name in ("first", "second")
        ]
        yield cluster.address, lambda: cluster.remove_node(added[1], allow_graceful=False)
    finally:
        cluster.shutdown()


def marks(meet):
    return [file for file in meet.iterdir() if file.suffix != ".half"]


def wait_until(true):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_lost_nodes_stage_runs_on_another_and_data_goes_through_a_remote(
    project, nodes, bucket, tmp_path
):
    address, kill = nodes
    serial = serially(project)
    params = (ROOT / PARAMS).read_text().replace("\n  remote: null", "\n  remote: meet")
    params = params.replace("default: {cpus: 2", "default: {cpus: 1")
    (project / "params.yaml").write_text(params)
    pipeline = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(pipeline.replace("[size]", "[seed]"))
    step = (project / "step.py").read_text()
    (project / "step.py").write_text(WAITS + step)
    where = bucket.meta.client.meta.endpoint_url
    for command in (["add", "meet", f"s3://{bucket.name}/meet"],
                    ["modify", "meet", "endpointurl", where]):  # fmt: skip
        subprocess.run([sys.executable, "-m", "dvc", "remote", *command], check=True)
    driver = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cluster", "repro", "--address", address],
        env=os.environ | S3_SETTINGS | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    meet = tmp_path / "meet"
    try:
        # both parts at once, one on each node
        wait_until(lambda: len(marks(meet)) == 2 or driver.poll() is not None)
        assert driver.poll() is None, driver.stdout.read()
        [lost] = [file for file in marks(meet) if file.name.endswith("-second")]
        kill()
        wait_until(lambda: not psutil.pid_exists(int(lost.read_text())))
        (meet / "go").touch()  # the other part ends, and makes way for the lost one
        said, _ = driver.communicate(timeout=PATIENCE)
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    assert (meet / lost.name.replace("second", "first")).exists()
    assert "4 stages ran, 0 came from DVC's cache, 0 were up to date" in said
    made = [lock(folder)["stages"] for folder in (project, serial)]
    for name in ("part@x", "part@y", "whole", "grown"):
        assert made[0][name]["outs"] == made[1][name]["outs"]
    assert is_up_to_date(project)
    assert list(bucket.objects.filter(Prefix="meet/files/md5")), "outputs went through the server"
    homes = [list((tmp_path / name).glob("*/cache/files")) for name in ("first", "second")]
    assert homes[0], "the node that lived has a cache of its own"


def test_a_node_with_other_libraries_is_named(tmp_path):
    here = {"Python": "3.11.7", "torch": "2.14.0"}
    check_alike([Node("a", here, None)], here)
    with pytest.raises(InputError, match=r"node b has torch none \(here 2\.14\.0\); results"):
        check_alike([Node("a", here, None), Node("b", here | {"torch": MISSING}, None)], here)
    with pytest.raises(InputError, match="cannot be written"):
        check_alike([Node("c", here, "its cache cannot be written to")], here)


def test_libraries_are_those_that_requirements_name(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# direct\n-r other.txt\ntorch==2.14.0  # why\nray[default]==2\nnumpy>=2,<3\n")
    assert direct_libraries(file) == ["torch", "ray", "numpy"]
    assert {"torch", "diffusers", "dvc"} <= set(direct_libraries(ROOT / "requirements.txt"))


def test_a_cache_that_is_another_folder_or_closed_is_a_fault(tmp_path):
    def place(cache):
        return Place(None, str(tmp_path), str(cache), str(tmp_path / "work"), {})

    with signed(tmp_path / "cache") as sign:
        assert look(place(tmp_path / "cache"), ["torch"], sign).fault is None
        fault = look(place(tmp_path / "other"), ["torch"], sign).fault
        assert "another folder on node" in fault and "cluster.remote" in fault
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("a file")
    assert "cannot be made on" in look(place(tmp_path / "file"), [], None).fault
    with pytest.raises(InputError, match="cannot be written to on"), signed(tmp_path / "file"):
        pass
