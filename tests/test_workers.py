import pytest

from pipeline.errors import InputError
from pipeline.workers import ALONE, Worker, parse_worker


def test_a_worker_is_told_its_number_and_how_many_there_are():
    assert parse_worker("2/4") == Worker(1, 4)
    for wrong in ("0/4", "5/4", "2", "2/", "-1/4", "a/b"):
        with pytest.raises(InputError, match=r"is not of the form 2/4"):
            parse_worker(wrong)


def test_every_shard_is_one_workers():
    shards = list("abcde")
    assert [Worker(k, 2).share(shards) for k in range(2)] == [["a", "c", "e"], ["b", "d"]]
    assert ALONE.alone and ALONE.share(shards) == shards
    assert not Worker(0, 2).alone
