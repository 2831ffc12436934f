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
        ("name: x\ndefinition: d\nconcepts: {a: mine}\n", "x.yaml: concepts.a: Input should be"),
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


def test_a_missing_category_file_says_where_it_belongs(tmp_path):
    with pytest.raises(InputError, match="there is no .*x.yaml; .*taxonomy.categories"):
        load_category(tmp_path / "x.yaml")
