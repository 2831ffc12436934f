"""What is wrong with a cluster shows before any stage starts."""

import sys

import pytest

from pipeline.cluster.connect import Needs, check_commands, check_needs, connect
from pipeline.errors import InputError


def test_what_no_node_has_is_an_error():
    nodes = [{"CPU": 4.0, "memory": 8 * 2.0**30}]
    check_needs({"small": Needs(4, 0, 8)}, nodes)
    with pytest.raises(InputError, match="train asks for 1 CPUs, 1 GPUs and 2 GiB .*no node has"):
        check_needs({"train": Needs(1, 1, 2)}, nodes)


def test_only_what_can_be_cut_is_cut_and_only_training_has_processes():
    draws = "python -m stages.generate_images hate"
    trains = "${LAUNCH:-python} -m stages.train_expert hate"
    check_commands({"a": Needs(shards=2), "b": Needs(processes=2)}, {"a": draws, "b": trains})
    with pytest.raises(InputError, match="gives b 2 shards; its command takes no --shard"):
        check_commands({"b": Needs(shards=2)}, {"b": trains})
    lists = "python -m stages.sample_psa"  # names shards, but takes none
    with pytest.raises(InputError, match="gives c 2 shards; its command takes no --shard"):
        check_commands({"c": Needs(shards=2)}, {"c": lists})
    with pytest.raises(InputError, match="gives a 2 processes; only stages that train"):
        check_commands({"a": Needs(processes=2)}, {"a": draws})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "host:port"])
def test_a_cluster_that_does_not_answer_is_an_error(address, tmp_path):
    with pytest.raises(InputError, match="nothing answers at .*is the Ray cluster there"):
        connect(address, None, tmp_path)


def test_ray_is_optional_and_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="needs Ray: pip install -r requirements-cluster.txt"):
        connect(None, 1, tmp_path)


def test_a_dashboard_that_is_not_installed_is_named(monkeypatch, tmp_path):
    ray = pytest.importorskip("ray")

    def init(**_):
        raise Exception("Cannot include dashboard with missing packages: aiohttp_cors")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(
        InputError, match=r"dashboard does not start .*pip install 'ray\[default\]'"
    ):
        connect(None, 1, tmp_path, dashboard=True)
