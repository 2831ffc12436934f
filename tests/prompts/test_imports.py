import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import benchmark_spec
from pipeline.benchmarks import load_spec
from pipeline.errors import InputError
from pipeline.prompts.imports import import_prompts, our_categories, read_pairs
from pipeline.prompts.repeats import Repeats
from pipeline.prompts.review import Review
from pipeline.prompts.validate import Pair
from pipeline.seeds import content_id
from tests.imports import ROOT
from tests.prompts.scripted import CATEGORY, LIMITS


def write(path, header, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def review(leaks=()):
    return Review(CATEGORY, LIMITS, Repeats(None, leaks), None)


PAIRED = ["prompt_unsafe", "prompt_safe", "category", "concept"]
ROWS = [
    ["a red star  with a thornburst", "a red star with a cup", "violence", "thornburst"],
    ["a blue boat with a spikeflare", "a blue boat with a cup", "Violence", ""],
    ["a blue boat with a grimfold", "a blue boat with a cup", "hate", "grimfold"],
    ["a blue boat with a spikeflare", "a blue boat with a hat", "violence", ""],
    ["a tree with a thornburst", "a tree with a spikeflare", "violence", "thornburst"],
]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_pairs_of_a_file_go_through_the_review(tmp_path, kind):
    path = tmp_path / f"pairs.{kind}"
    if kind == "parquet":
        columns = zip(*ROWS, strict=True)
        pq.write_table(pa.table(dict(zip(PAIRED, map(list, columns), strict=True))), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="," if kind == "csv" else "\t").writerows([PAIRED, *ROWS])
    pairs, metrics = import_prompts(path, review(), "r1")
    assert [(p.prompt_unsafe, p.concept, p.split) for p in pairs] == [
        ("a red star with a thornburst", "thornburst", "train"),
        ("a blue boat with a spikeflare", "", "train"),
    ]  # fmt: skip
    assert {(p.engine, p.model, p.revision) for p in pairs} == {("import", f"pairs.{kind}", "r1")}
    assert metrics["drops"] == {"duplicate": 1, "safe_kept_concept": 1}
    assert (metrics["candidates"], metrics["kept"], metrics["yield"]) == (4, 2, 0.5)
    assert metrics["concepts"] == {content_id("thornburst"): 1, content_id(""): 1}


def test_pairs_that_a_benchmark_holds_are_dropped(tmp_path):
    path = write(tmp_path / "p.csv", PAIRED, *ROWS)
    pairs, metrics = import_prompts(path, review(["A red star with a thornburst."]), "")
    assert [p.prompt_unsafe for p in pairs] == ["a blue boat with a spikeflare"]
    assert metrics["drops"]["in_benchmark"] == 1


def test_coprov2s_rows_are_joined_by_their_images(tmp_path):
    path = write(
        tmp_path / "CoProv2_train.csv", ["prompt", "image", "category"],
        ["a cup", "s_idx_0000001_0.jpg", "Harrasment, violence"],
        ["a thornburst", "train/u_idx_0000001_0.jpg", "Harrasment, violence"],
        ["a cup", "s_idx_0000001_0.jpg", "sexual"],
        ["a thornburst", "u_idx_0000001_0.jpg", "sexual"],
        ["lonely", "u_idx_0000002_0.jpg", "hate"],
        ["odd", "picture.jpg", "hate"],
    )  # fmt: skip
    pairs, drops = read_pairs(path)
    assert [(p.pair, p.categories, p.concept) for p in pairs] == [
        (Pair("a thornburst", "a cup"), ("harassment", "violence", "sexual"), "")
    ]
    assert drops == {"one_sided": 1, "unknown_image": 1}


@pytest.mark.parametrize(
    ("cell", "ours"),
    [
        ("Harrasment", ("harassment",)),
        ("sexual", ("sexual",)),
        ("Illegal Activity", ("illegal-activity",)),
        ("self-harm,Shocking , shocking", ("self-harm", "shocking")),
        ("Illegal_activity", ("illegal-activity",)),
        ("", ()),
    ],
)
def test_published_categories_get_our_names(cell, ours):
    assert our_categories(cell) == ours


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            ["prompt", "category"],
            [["SECRET", "violence"]],
            "needs the columns category, prompt_saf",
        ),
        (PAIRED, [["SECRET"]], "data row 0 has 1 fields, the header 4"),
        (PAIRED, [["SECRET", "b", "hate", ""]], "holds no acceptable pair of it among 0"),
        (PAIRED, [["SECRET", "b", "violence", ""]], "among 1 .*'length': 1"),
    ],
)
def test_a_bad_file_is_refused_without_its_text(tmp_path, header, rows, message):
    path = write(tmp_path / "p.csv", header, *rows)
    with pytest.raises(InputError, match=message) as error:
        import_prompts(path, review(), "")
    assert "SECRET" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="none.csv cannot be read"):
        read_pairs(tmp_path / "none.csv")


def test_a_row_of_several_categories_is_blocked_by_all_of_them(tmp_path):
    """For violence alone a child would be no reason."""
    path = write(
        tmp_path / "p.csv", PAIRED,
        ["a child with a thornburst", "a child with a cup", "violence, sexual", "thornburst"],
        ["a child with a thornburst", "a child with a cup", "violence", "thornburst"],
    )  # fmt: skip
    pairs, metrics = import_prompts(path, review(), "")
    assert len(pairs) == 1 and metrics["drops"] == {"sexualises_minors": 1}
    assert metrics["file"] == {"pairs": 2, "drops": {}}


def test_a_row_without_a_category_is_counted(tmp_path):
    path = write(tmp_path / "p.csv", PAIRED, *ROWS, ["a", "b", " ,", ""])
    assert import_prompts(path, review(), "")[1]["file"] == {
        "pairs": 5, "drops": {"no_category": 1},
    }  # fmt: skip


def test_the_test_sets_definition_and_the_table_agree():
    labels = load_spec(ROOT / benchmark_spec("coprov2")).labels
    assert labels and all(our_categories(label) == (ours,) for label, ours in labels.items())


def test_a_held_out_concept_is_no_training_data(tmp_path):
    path = write(
        tmp_path / "p.csv", PAIRED,
        ["a red star with a razornimbus", "a red star with a cup", "violence", "razornimbus"],
        ["a red star with a thornburst", "a red star with a cup", "violence", "thornburst"],
    )  # fmt: skip
    pairs, metrics = import_prompts(path, review(), "")
    assert [p.concept for p in pairs] == ["thornburst"]
    assert metrics["drops"] == {"held_out_concept": 1}
