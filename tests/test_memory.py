import gc
import logging
import weakref

import pytest
import torch

from pipeline.errors import InputError
from pipeline.memory import Fitting, is_out_of_memory

CPU = RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory")


class Cramped:
    """Hands back the numbers it is asked for, if they are few enough."""

    def __init__(self, fits, error=CPU):
        self.fits, self.error, self.asked = fits, error, []

    def __call__(self, some):
        self.asked.append(some.stop - some.start)
        if self.asked[-1] > self.fits:
            raise self.error
        return list(range(some.start, some.stop))


@pytest.mark.parametrize("error", [CPU, MemoryError(), torch.OutOfMemoryError("CUDA")])
def test_what_does_not_fit_is_done_in_halves_for_good_and_that_is_said_once(error, caplog):
    fitting, work = Fitting("judge images", "judges.batch"), Cramped(3, error)
    assert fitting.run(10, work, "") == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert work.asked == [10, 5, 2, 2, 2, 2, 2]
    assert fitting.run(3, work, "") == [[0, 1], [2]]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"memory does not suffice to judge images {size} at once: going on with {size // 2}, whose "
        "last bits may differ; set judges.batch to it" for size in (10, 5)
    ]  # fmt: skip


def test_a_last_short_batch_that_fails_halves_itself():
    fitting, work = Fitting("x", "y", most=4), Cramped(2)
    assert fitting.run(7, Cramped(9), "") == [[0, 1, 2, 3], [4, 5, 6]]
    assert fitting.run(3, work, "") == [[0], [1], [2]]
    assert work.asked == [3, 1, 1, 1]


def test_nothing_is_asked_of_nothing():
    assert Fitting("x", "y").run(0, Cramped(0), "") == []


def test_not_even_one_is_an_error_with_the_remedy():
    work = Cramped(0)
    with pytest.raises(InputError, match="suffice to draw images one at a time; lower the size"):
        Fitting("draw images", "images.batch").run(4, work, "lower the size")
    assert work.asked == [4, 2, 1]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        Fitting("x", "y").run(4, Cramped(1, RuntimeError("shapes do not match")), "")


def test_what_did_not_fit_is_given_back_before_the_half_is_tried():
    left = []

    def work(some):
        if left:
            assert left[0]() is None
            return some
        tensor = torch.zeros(10)
        left.append(weakref.ref(tensor))
        raise MemoryError

    gc.disable()
    try:
        assert len(Fitting("x", "y").run(2, work, "")) == 2
    finally:
        gc.enable()
