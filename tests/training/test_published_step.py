"""Our step against the published one, written apart for the bench: from images, two UNets."""

import pytest

from bench.published import Case
from bench.train_step import LARGEST_DIFFERENCE, losses_agree
from tests.imports import ROOT


@pytest.mark.parametrize("side", ["ours", "ours, in halves"])
def test_cached_pairs_have_the_losses_of_their_images(side, monkeypatch):
    monkeypatch.chdir(ROOT)
    case = Case("assets/testbed/sd", pixels=64, batch=3, bf16=False)
    assert losses_agree(case, ["naive", side]) < LARGEST_DIFFERENCE
