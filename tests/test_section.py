import traceback

import pytest

from pipeline.errors import InputError
from pipeline.section import (
    Count,
    NotNegative,
    Positive,
    Section,
    Share,
    check_watched,
    read_yaml,
)


class Inner(Section):
    n: Count


class Outer(Section):
    inner: Inner
    words: dict[str, Count] = {}


def read(tmp_path, text, private=False):
    (tmp_path / "a.yaml").write_bytes(text.encode("latin-1"))
    return read_yaml(tmp_path / "a.yaml", Outer, "write one", private)


def test_local_sources_must_be_watched(tmp_path):
    (tmp_path / "models" / "own").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "models")
    own = tmp_path / "models" / "own"
    for watch in (own, tmp_path / "models", tmp_path / "link"):
        check_watched("path", str(own), tmp_path / "elsewhere", watch)
    for watch in (own / "unet", tmp_path / "own"):
        with pytest.raises(ValueError, match="path .*own is not within .*; set watch to it, or"):
            check_watched("path", own, watch)
    check_watched("path", None, tmp_path)
    check_watched("path", "a-hub/id", tmp_path)


def test_a_good_file(tmp_path):
    assert read(tmp_path, "inner: {n: 2}\n") == Outer(inner=Inner(n=2))


def test_every_fault_is_named_by_its_key(tmp_path):
    text = "inner: {n: 0}\nwords: {a: 0}\nodd: 1\n"
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    for said in (
        "inner.n: Input should be greater",
        "words.a: Input should",
        "odd: there is no such key",
    ):
        assert said in str(error.value)


def test_a_private_file_has_keys_of_its_own_named_by_position(tmp_path):
    text = "inner: {n: 1}\nwords: {k: 1, SECRET: 0}\nSECRET: 1\n"
    with pytest.raises(InputError) as error:
        read(tmp_path, text, private=True)
    assert "words: entry 2: Input should be greater" in str(error.value)
    assert "entry 3: there is no such key" in str(error.value)
    assert "SECRET" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {}\nSECRET: a: b\n", "line 2 column 10: mapping values are not allowed here"),
        ("inner: [SECRET\n", "line 2 column 1: expected ',' or ']', but got '<stream end>'"),
        ("a:\n\t- SECRET\n", r"line 2 column 1: found character '\t' that cannot start any token"),
        ("a: *SECRET\n", "line 1 column 4: found undefined alias '...'"),
        ("a: !SECRET b\n", "could not determine a constructor for the tag '...'"),
        ("a: !SECRET's b\n", "could not determine a constructor for the tag '...'"),
        ("SECRET: 2020-13-45\n", "a.yaml is not YAML: a number or date in it is none"),
        ("SECRET: \x00\n", "a.yaml is not YAML: special characters are not allowed"),
        ("SECRET: caf\xe9\n", "a.yaml is not YAML: it is not UTF-8"),
    ],
)
def test_what_is_not_yaml_is_told_by_place_and_never_quoted(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert message in str(error.value)
    assert "SECRET" not in "".join(traceback.format_exception(error.value))


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="there is no .*none.yaml; write one"):
        read_yaml(tmp_path / "none.yaml", Outer, "write one")


class Numbers(Section):
    free: float = 0.0
    share: Share = 0.0
    positive: Positive | None = None
    weights: dict[str, NotNegative] = {}
    scales: list[Positive] = []


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("text", ["free: {}", "share: {}", "positive: {}", "weights: {{a: {}}}",
                                  "scales: [1.0, {}]"])  # fmt: skip
def test_no_number_is_infinite_or_none(tmp_path, text, number):
    (tmp_path / "a.yaml").write_text(text.format(number))
    with pytest.raises(InputError, match="should be a finite number"):
        read_yaml(tmp_path / "a.yaml", Numbers, "write one")


def test_what_is_not_negative_may_be_none_at_all(tmp_path):
    (tmp_path / "a.yaml").write_text("weights: {a: 0}")
    assert read_yaml(tmp_path / "a.yaml", Numbers, "write one").weights == {"a": 0.0}
    (tmp_path / "a.yaml").write_text("weights: {a: -0.1}")
    with pytest.raises(InputError, match="weights.a: .*greater than or equal to 0"):
        read_yaml(tmp_path / "a.yaml", Numbers, "write one")
