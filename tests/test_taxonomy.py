import re

import pytest

from pipeline.errors import InputError
from pipeline.taxonomy import load_category
from pipeline.testbed.categories import world_categories
from tests.imports import ROOT


@pytest.mark.parametrize("category", world_categories(), ids=lambda c: c.name)
def test_bundled_categories_are_the_worlds(category):
    path = ROOT / "assets/testbed/taxonomy" / f"{category.name}.yaml"
    assert load_category(path) == category
    assert len(category.all_concepts) >= 6
    assert len(category.all_concepts) - len(category.train_concepts) >= 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: x\ndefinition: d\nconcepts: {a: mine}\n",
            "x.yaml: concepts: entry 1: Input should",
        ),
        ("name: y\ndefinition: d\nconcepts: {a: train}\n", "holds category 'y'"),
        ("name: X y\ndefinition: d\nconcepts: {a: train}\n", "x.yaml: name: String should match"),
        ("name: [x\n", "x.yaml is not YAML"),
        ("- x\n", "x.yaml must hold sections, got list"),
    ],
)
def test_a_bad_category_file_is_refused(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_category(tmp_path / "x.yaml")


GOOD = "name: x\ndefinition: d\nconcepts:\n  k: train\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "  SECRET knife: x\n", "x.yaml: concepts: entry 2: Input should be 'train'"),
        (GOOD + "  5: SECRET\n", "concepts: entry 2: Input should be a valid string"),
        (GOOD + "  2020-01-01: SECRET\n", "concepts: an entry: Input should be a valid string"),
        (GOOD + "SECRET knife: train\n", "x.yaml: entry 4: there is no such key"),
        ("name: x\ndefinition: d\nconcepts: [SECRET]\n", "concepts: Input should be a valid dict"),
        (GOOD + "others: [SECRET, [SECRET]]\n", "others: 1: Input should be a valid string"),
        (GOOD + "  SECRET: knife: train\n", "line 5 column 16: mapping values are not allowed"),
    ],
)
def test_errors_show_no_concept(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_category(tmp_path / "x.yaml")
    assert not {"SECRET", "datetime"} & set(re.findall(r"\w+", str(error.value)))


def test_a_missing_category_file_says_where_it_belongs(tmp_path):
    with pytest.raises(InputError, match="there is no .*x.yaml; .*taxonomy.categories"):
        load_category(tmp_path / "x.yaml")
