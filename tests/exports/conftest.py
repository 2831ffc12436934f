import pytest

from stages import build_pairs
from tests.imports import ROOT
from tests.pair_files import Category, Draw


@pytest.fixture(scope="package")
def built(tmp_path_factory):
    """A working directory with the pairs of two categories, as the stage writes them."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, count in (("violence", 34), ("hate", 33)):
            Category(*[Draw()] * count, Draw(unsafe=-1), name=name).write_artifacts()
            build_pairs.main(name)
    return folder


@pytest.fixture
def at_pairs(built, monkeypatch):
    """Run there."""
    monkeypatch.chdir(built)
    return built
