import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables import column_names, read_cells


def test_every_format_gives_the_same_cells(tmp_path):
    files = {
        "a.csv": "text,n\none,1\n", "a.tsv": "text\tn\none\t1\n",
        "a.jsonl": '{"text": "one", "n": 1}\n',
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    pq.write_table(pa.table({"text": ["one"], "n": [1]}), tmp_path / "a.parquet")
    for name in (*files, "a.parquet"):
        cells = read_cells("f", tmp_path / name, {"prompt": "text", "seed": "n"})
        assert cells == [{"text": "one", "n": "1"}]


def test_lines_of_a_text_are_prompts(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffone\n\n two\n")
    assert read_cells("f", tmp_path / "a.txt", {"prompt": "p"}) == [{"p": "one"}, {"p": "two"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet"])
def test_column_names(tmp_path, name):
    if name.endswith("parquet"):
        pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / name)
    else:
        (tmp_path / name).write_text("\ufeffx{}y\n1{}2\n".replace("{}", ",\t"[name[-3] == "t"]))
    assert column_names(tmp_path / name) == {"x", "y"}


def test_an_empty_file_has_no_columns_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("")
    assert column_names(tmp_path / "a.csv") == set()
    with pytest.raises(InputError, match="b.csv cannot be read"):
        column_names(tmp_path / "b.csv")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a"])
def test_only_tables_have_column_names(tmp_path, name):
    (tmp_path / name).write_text("x,y\n")
    with pytest.raises(InputError, match=f"{name} is none of .csv, .tsv, .parquet"):
        column_names(tmp_path / name)


def test_errors_say_what_the_caller_says_and_nothing_of_params(tmp_path):
    (tmp_path / "a.csv").write_text("secret,n\none,1\n")
    with pytest.raises(InputError, match="^f data row 0 has no column 'text'; it has 2 others$"):
        read_cells("f", tmp_path / "a.csv", {"prompt": "text"})
    with pytest.raises(InputError, match="^f is not there$"):
        read_cells("f", tmp_path / "none.csv", {"prompt": "text"})
