from pathlib import Path

import pytest

from pipeline.custody.cache import cached_objects
from pipeline.custody.kinds import KEPT, UNKNOWN, UNSAFE, judge
from pipeline.custody.scan import files_below
from pipeline.errors import InputError
from tests.conftest import png
from tests.custody.conftest import listing, put_into_cache

CARD, PICTURE, NOTE = (digit * 32 for digit in "abc")


def verdicts():
    cache = Path(".dvc/cache").resolve()
    objects = cached_objects(cache, list(files_below(cache)))
    return {path.parent.name + path.name: judge(content, named)[0]
            for path, content, named in objects}  # fmt: skip


def test_text_of_an_older_run_is_known_by_the_run_cache_or_by_its_company(repository):
    """Concepts, cards and metrics could be anything by their content."""
    by_text = {
        f.read_bytes(): f.parent.name + f.name for f in files_below(repository / ".dvc/cache")
    }
    found = verdicts()
    for version in (1, 2):
        assert found[by_text[f"# A model card {version}\n".encode()]] == KEPT
        assert found[by_text[f"concepts: [thornburst {version}]".encode()]] == UNSAFE
        # of a stage whose outputs stay, which has no run cache
        assert found[by_text[f'{{"of": "thornburst {version}"}}'.encode()]] == UNSAFE
    assert UNKNOWN not in found.values()


def test_what_no_record_and_no_content_tells_is_unknown(repository):
    put_into_cache(repository, NOTE, b"a note")
    assert verdicts()[NOTE] == UNKNOWN


def test_a_listing_and_its_files_share_their_company(repository):
    put_into_cache(repository, NOTE, b"a note")
    put_into_cache(repository, PICTURE, png("red").bytes)
    put_into_cache(repository, f"{CARD}.dir", listing(NOTE, PICTURE, "d" * 32))
    found = verdicts()
    assert found[NOTE] == found[PICTURE] == found[f"{CARD}.dir"] == UNSAFE


def test_an_object_that_lies_in_the_cache_twice_is_found_twice(repository):
    """DVC 2 had another layout, which DVC 3 leaves in place."""
    path = put_into_cache(repository, PICTURE, png("red").bytes)
    old = repository / ".dvc/cache" / PICTURE[:2] / PICTURE[2:]
    old.parent.mkdir(parents=True)
    old.write_bytes(path.read_bytes())
    cache = Path(".dvc/cache").resolve()
    found = [p for p, _, _ in cached_objects(cache, list(files_below(cache)))
             if p.name == old.name]  # fmt: skip
    assert {p.relative_to(cache).parts[0] for p in found} == {"files", PICTURE[:2]}


def test_a_damaged_listing_is_unknown(repository):
    put_into_cache(repository, f"{CARD}.dir", b'[{"md5"')
    assert verdicts()[f"{CARD}.dir"] == UNKNOWN


def test_evidence_comes_last(repository):
    """Deleted in this order, what is left can be told at any time."""
    cache = Path(".dvc/cache").resolve()
    order = [(path.name.endswith(".dir"), content is not None)
             for path, content, _ in cached_objects(cache, list(files_below(cache)))]  # fmt: skip
    assert order == sorted(order)
    assert len(set(order)) == 3


def test_a_damaged_lock_is_named(repository):
    Path("dvc.lock").write_text("stages: [")
    with pytest.raises(InputError, match="dvc.lock is no YAML"):
        verdicts()
