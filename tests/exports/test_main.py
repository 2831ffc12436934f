import sys
from itertools import chain

import datasets
import pytest
import yaml
from datasets import Features

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.exports.__main__ import main
from pipeline.exports.facts import gather_facts
from pipeline.exports.folder import open_folder
from pipeline.exports.kinds import KINDS
from pipeline.records import PreferencePair, arrow_schema
from pipeline.storage import read_rows, stream_columns, write_json


@pytest.fixture
def export(at_pairs, tmp_path, monkeypatch, capsys):
    """Run the command line; returns (exit message or None, what it printed)."""

    def run(*arguments, out="out"):
        monkeypatch.setattr(
            sys, "argv", ["exports", *arguments, "--out", str(tmp_path / out)]
        )  # fmt: skip
        try:
            main()
        except SystemExit as exit_:
            return exit_.code, capsys.readouterr()
        return None, capsys.readouterr()

    return run


def load(folder, tmp_path):
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))


def front_matter(folder):
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


TWO = ("--categories", "violence", "hate")


def test_pick_a_pic_is_read_as_public_trainers_read_it(export, tmp_path):
    code, printed = export("pickapic", *TWO)
    assert code is None
    assert "134 rows" in printed.out and "keep it private" in printed.out
    rows = load(tmp_path / "out", tmp_path)
    assert rows.num_rows == 2 * (34 + 33)
    assert {type(rows[0][name]) for name in ("jpg_0", "jpg_1")} == {bytes}
    assert set(rows["label_0"]) == {0.0, 1.0}
    assert {"a red star 3 with a thornburst", "a red star 3 with a cup"} <= set(rows["caption"])
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_the_dataset_loads_with_its_card(export, tmp_path):
    export("dataset", *TWO)
    rows = load(tmp_path / "out", tmp_path)
    assert rows.num_rows == 67
    assert rows[0]["image_chosen"].getpixel((0, 0)) == (0, 0, 255)
    ours = read_rows(tmp_path / "out/data/hate.parquet", PreferencePair)
    assert ours == read_rows(artifacts.pairs("hate"), PreferencePair)


def test_redacted_pictures_can_be_shown_and_rejected_ones_left_out(export, tmp_path):
    export("redacted", *TWO)
    rows = load(tmp_path / "out", tmp_path)
    assert rows[0]["image_rejected"].size == (8, 8)
    assert "prompt_rejected" not in rows.column_names
    export("redacted", "--withhold", *TWO, out="withheld")
    assert "image_rejected" not in load(tmp_path / "withheld", tmp_path).column_names
    for file in (tmp_path / folder / "data" / f"{name}.parquet"
                 for folder in ("out", "withheld") for name in ("violence", "hate")):  # fmt: skip
        texts = stream_columns(file, KINDS["redacted"].row_type, ("concept", "prompt_chosen"))
        assert not any("thornburst" in text for text in chain.from_iterable(texts))


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_says_how_it_was_made_and_quotes_nothing(export, tmp_path, kind):
    switch = ["--withhold"] if kind == "withheld" else []
    name = "redacted" if kind == "withheld" else kind
    export(name, *switch, *TWO, "--license", "cc-by-4.0")
    head, body = front_matter(tmp_path / "out")
    per_pair = 2 if kind == "pickapic" else 1
    assert head["license"] == "cc-by-4.0"
    assert head["size_categories"] == "n<1K"
    assert ("not-for-all-audiences" in head["tags"]) == KINDS[kind].unsafe
    assert ("unsafe prompts and pictures" in body) == KINDS[kind].unsafe
    assert head["dataset_info"]["splits"] == [{"name": "train", "num_examples": 67 * per_pair}]
    as_hub = Features.from_arrow_schema(arrow_schema(KINDS[kind].row_type))._to_yaml_list()
    assert head["dataset_info"]["features"] == as_hub
    for said in ("| violence | 35 | 34 | 0.971 | 1 |", "| hate | 34 | 33 | 0.971 | 1 |",
                 "`m`, revision or identity of the weights `r`", "scheduler `\"dpm++\"`",
                 "`lm`, engine `transformers`", "rule `safetydpo`", "- q16: `1`",
                 "a hash of 0 and"):  # fmt: skip
        assert said in body, said
    assert "thornburst" not in body and "a red star" not in body
    assert "None" not in body and "{{" not in body


def test_an_export_is_renewed_whole(export, tmp_path):
    export("dataset", *TWO)
    export("dataset", "--categories", "hate")
    assert [p.name for p in (tmp_path / "out/data").iterdir()] == ["hate.parquet"]
    assert "violence" not in (tmp_path / "out/README.md").read_text()
    code, _ = export("pickapic", "--categories", "hate")
    assert "holds an export of kind dataset" in code


def test_wrong_arguments_end_in_one_line(export, tmp_path):
    code, _ = export("dataset", "--categories", "mischief")
    assert code.startswith("exports: --categories: mischief is not in hate, harassment")
    code, _ = export("dataset", "--categories", "sexual")
    assert "sexual.parquet is missing" in code
    code, printed = export("dataset", "--withhold")
    assert code == 2 and "--withhold is for the kind redacted" in printed.err
    code, printed = export("pickapick")
    assert code == 2 and "invalid choice: 'pickapick'" in printed.err
    assert not (tmp_path / "out").exists()


def test_pairs_that_are_not_those_of_their_metrics_are_refused(at_pairs, tmp_path):
    kept = artifacts.pair_metrics("hate").read_text()
    try:
        write_json(artifacts.pair_metrics("hate"), {"kept": 3, "drops": {}})
        with pytest.raises(InputError, match="has 33 pairs, its metrics say 3"):
            gather_facts(["hate"])
    finally:
        artifacts.pair_metrics("hate").write_text(kept)


def test_a_folder_of_a_killed_run_is_taken_up(export, tmp_path):
    folder = open_folder(tmp_path / "out", "dataset")
    (folder / "data").mkdir()
    for unfinished in ("data/.hate.parquet.partial", ".README.md.partial"):
        (folder / unfinished).write_text("half")
    code, _ = export("dataset", "--categories", "hate")
    assert code is None
    assert [p.name for p in (tmp_path / "out/data").iterdir()] == ["hate.parquet"]
