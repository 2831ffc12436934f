import argparse
import hashlib

import pytest

from pipeline.errors import InputError
from pipeline.personal.asked import add_arguments, for_whom
from pipeline.personal.files import save_space
from tests.personal.examples import CATEGORIES, FLOOR, make_space

SPACE = make_space()


@pytest.fixture
def ask(tmp_path):
    """For whom a command line draws, given its options beside ``--psa``."""
    save_space(tmp_path / "psa", SPACE)
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    def asked(*options, psa=True):
        adapter = ["--psa", str(tmp_path / "psa")] if psa else []
        return for_whom(parser.parse_args([*adapter, *options]))

    return asked


@pytest.mark.parametrize(
    ("options", "banned"),
    [
        ([], set(CATEGORIES)),  # nobody known
        (["--profile", "age=15"], set(CATEGORIES)),
        (["--profile", "age=40,religion=none", "--bans", "nothing"], FLOOR),
        (["--profile", "age=15", "--bans", "nothing"], set(CATEGORIES)),
        (["--bans", "violence, hate"], {"violence", "hate", *FLOOR}),
        (["--level", "L1"], FLOOR),
    ],
)
def test_what_is_banned_follows_from_what_was_told(ask, options, banned):
    assert ask(*options).boundary.banned == banned


def test_the_record_has_all_that_shapes_pictures(ask, tmp_path):
    found = ask("--bans", "hate", "--strength", "0.5").record()
    assert found["adapter_sha256"] == hashlib.sha256((tmp_path / "psa").read_bytes()).hexdigest()
    assert (found["banned"], found["strength"]) == (["hate", "sexual"], 0.5)
    assert found["user_vector"] != ask("--bans", "violence").record()["user_vector"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--profile", "age=200"], "--profile: age: "),
        (["--profile", "age=-1"], "--profile: age: "),
        (["--profile", "faith=none"], "--profile: faith: "),
        (["--profile", "religion=moon"], "--profile: religion: "),
        (["--bans", "gore"], "bans: 'gore' is no category"),
        (["--bans", "nothing,hate"], "bans: 'nothing' is no category"),
        (["--level", "L9"], "unknown level 'L9'; known: L1, L2"),
        (["--level", "L1", "--bans", "hate"], "give a level, or a profile and bans, not both"),
        (["--strength", "nan"], "--strength must be a number from 0 up"),
        (["--strength", "-1"], "--strength must be a number from 0 up"),
    ],
)
def test_what_cannot_be_is_refused_by_name(ask, options, fault):
    with pytest.raises(InputError, match=fault):
        ask(*options)


@pytest.mark.parametrize("options", [["--bans", "hate"], ["--profile", "age=15"],
                                     ["--level", "L1"], ["--strength", "0.5"]])  # fmt: skip
def test_without_an_adapter_nobody_is_asked_for(ask, options):
    assert ask(psa=False) is None
    with pytest.raises(InputError, match=f"{options[0]} needs --psa"):
        ask(*options, psa=False)
