import csv
import json

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.artifacts import benchmark_spec
from pipeline.benchmarks import BenchmarkSpec, load_spec, read_benchmark
from pipeline.errors import InputError
from pipeline.prompts.words import normalise
from pipeline.testbed import lm, world
from pipeline.testbed.categories import benchmark_rows, world_categories
from tests.imports import ROOT

HEADER = "prompt,category,concept,contrast\n"
SPEC = {"source": "here", "kind": "unsafe",
        "columns": {c: c for c in ("prompt", "category", "concept", "contrast")}}  # fmt: skip


def read(tmp_path, text, name="b.csv", categories=("hate", "violence"), **spec):
    (tmp_path / name).write_text(text)
    return read_benchmark("b", BenchmarkSpec(**SPEC | spec), tmp_path / name, categories)


def test_prompts_of_other_categories_are_left_out_and_counted(tmp_path):
    text = HEADER + "one,hate,k,\ntwo,violence,k,\nthree,,,bare\n"
    rows, counts = read(tmp_path, text, categories=["hate"])
    assert [(r.row, r.prompt, r.contrast) for r in rows] == [(0, "one", ""), (2, "three", "bare")]
    assert counts == {"rows": 3, "prompts": 2, "drops": {"other_category": 1}}
    with pytest.raises(InputError, match="holds no prompt of the chosen categories.*other_cat"):
        read(tmp_path, HEADER + "one,hate,k,\n", categories=["shocking"])
    with pytest.raises(InputError, match="holds no prompt of the chosen categories.*it is empty"):
        read(tmp_path, HEADER)


def test_what_sexualises_minors_is_dropped_and_counted_whatever_the_settings(tmp_path):
    text = HEADER + "a lewd child,hate,,\ntwo,hate,,\nthree,hate,k,a naked child\n"
    rows, counts = read(tmp_path, text)
    assert [r.prompt for r in rows] == ["two"]
    assert counts["drops"] == {"hard_blocked": 2}


I2P = "prompt,categories,sd_seed,sd_guidance_scale,w,h\n"
I2P_SPEC = {
    "columns": {"prompt": "prompt", "category": "categories", "seed": "sd_seed",
                "guidance": "sd_guidance_scale", "width": "w", "height": "h"},
    "separator": ",",
}  # fmt: skip


def test_a_file_brings_categories_seeds_and_sizes_of_its_own(tmp_path):
    text = I2P + 'one,"hate, illegal activity",3449,7.5,512,768\ntwo,Hate,,,,\n'
    rows, _ = read(tmp_path, text, **I2P_SPEC)
    assert rows[0].category == "hate+illegal-activity"
    assert (rows[0].seed, rows[0].guidance, rows[0].width, rows[0].height) == (3449, 7.5, 512, 768)
    assert rows[1].category == "hate"
    assert (rows[1].seed, rows[1].guidance, rows[1].width, rows[1].height) == (None,) * 4


def test_a_whole_file_can_be_of_one_category(tmp_path):
    columns = {"prompt": "prompt"}
    rows, counts = read(tmp_path, "prompt\none\na girl\n", columns=columns, category="hate")
    assert [r.category for r in rows] == ["hate", "hate"]
    _, counts = read(tmp_path, "prompt\none\na girl\n", columns=columns, category="sexual",
                     categories=["sexual"])  # fmt: skip
    assert counts["drops"] == {"hard_blocked": 1}  # stricter there
    for wrong in ({"category": "hate"}, {"kind": "benign"}):
        with pytest.raises(ValueError, match="not both|no categories of harm"):
            BenchmarkSpec(**SPEC | wrong)


def test_categories_can_have_other_names_in_the_file(tmp_path):
    rows, _ = read(tmp_path, HEADER + "one,Violenz!,,\n", labels={"Violenz!": "violence"})
    assert rows[0].category == "violence"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_reads_alike(tmp_path, suffix):
    table = pd.DataFrame({"text": ["one", "None", "drei, vier"], "seed": [1, 2, 3]})
    file = tmp_path / f"b{suffix}"
    if suffix == ".jsonl":
        table.to_json(file, orient="records", lines=True)
    elif suffix == ".parquet":
        table.to_parquet(file)
    else:
        table.to_csv(file, index=False, sep="\t" if suffix == ".tsv" else ",")
    spec = BenchmarkSpec(source="s", kind="benign", columns={"prompt": "text", "seed": "seed"})
    rows, _ = read_benchmark("b", spec, file, [])
    assert [(r.prompt, r.seed) for r in rows] == [("one", 1), ("None", 2), ("drei, vier", 3)]


def test_plain_text_has_one_prompt_a_line(tmp_path):
    rows, _ = read(tmp_path, "one\n\ntwo, too\n", "b.txt", kind="benign",
                   columns={"prompt": "prompt"})  # fmt: skip
    assert [r.prompt for r in rows] == ["one", "two, too"]


def test_repeated_prompts_are_refused_or_dropped_as_the_definition_says(tmp_path):
    text = HEADER + "one,hate,,\none,hate,,\n"
    with pytest.raises(InputError, match="data row 1 repeats an earlier prompt.*repeated: drop"):
        read(tmp_path, text)
    assert read(tmp_path, text, repeated="drop")[1]["drops"] == {"repeated": 1}
    seeds = I2P + "one,hate,1,,,\none,hate,2,,,\n"  # two images, for they have seeds of their own
    assert len(read(tmp_path, seeds, **I2P_SPEC)[0]) == 2


@pytest.mark.parametrize(
    ("text", "message", "spec"),
    [
        (
            "text,category\nx,y\n",
            r"^benchmark b: .*b.csv data row 0 has no column 'prompt'.*/b\.yaml its columns$",
            {},
        ),
        (HEADER + "one,secret!,,\n", "data row 0 has a category that is no name of ours", {}),
        (HEADER + " ,hate,,\n", "data row 0 has an empty prompt; remove the row", {}),
        ("", "b.csv is empty", {}),
        (HEADER + "one,hate,,\nsecret, two,hate,,\n", "data row 1 has 5 fields, the header 4", {}),
        (HEADER + "one,hate\n", "data row 0 has 2 fields, the header 4; .* needs quotes", {}),
        ("secret prompt\none\n", "has no column 'prompt'; it has 1 others", {}),
        (I2P + "one,hate,x,,,\n", "data row 0 has no seed: a whole number of 0 or more", I2P_SPEC),
        (I2P + "one,hate,1.5,,,\n", "data row 0 has no seed", I2P_SPEC),
        (I2P + "one,hate,,-1,,\n", "data row 0 has no guidance", I2P_SPEC),
        (I2P + "one,hate,,nan,,\n", "data row 0 has no guidance", I2P_SPEC),
        (I2P + "one,hate,,,70,\n", "a width of 70, no multiple of 8", I2P_SPEC),
    ],
)
def test_a_bad_file_is_refused_by_row_and_never_by_text(tmp_path, text, message, spec):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, text, **spec)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"), [('{"text": "x", "seed": 1', "line 2 is no JSON object"),
                          ("[1]", "line 2 is no JSON object"),
                          ('{"text": ["x"], "seed": 1}', "row 1 holds a list in 'text'"),
                          ('{"text": "x", "seed": 1e30}', "row 1 has no seed"),
                          ('{"text": "x"}', "row 1 has no column 'seed'")],
)  # fmt: skip
def test_a_bad_line_of_json_is_named(tmp_path, line, message):
    spec = {"kind": "benign", "columns": {"prompt": "text", "seed": "seed"}}
    good = '{"text": "one\\u2028two", "seed": 9007199254740993}\n'
    assert read(tmp_path, good, "b.jsonl", **spec)[0][0].seed == 9007199254740993
    with pytest.raises(InputError, match=message):
        read(tmp_path, good + line, "b.jsonl", **spec)


def test_a_category_named_twice_counts_once(tmp_path):
    rows, _ = read(tmp_path, I2P + 'one,"hate, Hate, spite",,,,\n',
                   **I2P_SPEC | {"labels": {"spite": "hate"}})  # fmt: skip
    assert rows[0].category == "hate"


def test_repeated_ids_are_refused(tmp_path):
    columns = {"prompt": "prompt", "id": "concept"}
    with pytest.raises(InputError, match="data row 1 repeats an earlier concept"):
        read(tmp_path, HEADER + "one,,7,\ntwo,,7,\n", columns=columns)
    with pytest.raises(InputError, match="data row 0 has an empty concept; .* leave id out"):
        read(tmp_path, HEADER + "one,,,\ntwo,,,\n", columns=columns)


def test_a_missing_or_strange_file_is_named(tmp_path):
    with pytest.raises(
        InputError, match="^benchmark b: .*none.csv is not there; .* path in benchmarks.b"
    ):
        read_benchmark("b", BenchmarkSpec(**SPEC), tmp_path / "none.csv", [])
    with pytest.raises(InputError, match=r"b.xlsx is none of .csv, .tsv"):
        read(tmp_path, "", "b.xlsx")
    (tmp_path / "c.csv").write_bytes((HEADER + "caf\xe9,hate,,\n").encode("latin-1"))
    with pytest.raises(InputError, match="c.csv cannot be read"):
        read_benchmark("b", BenchmarkSpec(**SPEC), tmp_path / "c.csv", ["hate"])


def test_every_definition_in_the_repository_is_valid():
    files = sorted((ROOT / "benchmarks").glob("*.yaml"))
    specs = {file.stem: load_spec(file) for file in files}
    assert {"heldout", "seen", "benign", "lookalike", "i2p", "coprov2", "coco"} <= specs.keys()
    assert {s.kind for s in specs.values()} == {"unsafe", "adversarial", "benign"}


def test_every_benchmark_of_the_profile_has_a_definition(default_params):
    for name in default_params["benchmarks"]:
        assert load_spec(benchmark_spec(name))


def test_a_definition_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(SPEC | {"colums": {}}))
    with pytest.raises(InputError, match="b.yaml: colums: there is no such key"):
        load_spec(tmp_path / "b.yaml")
    with pytest.raises(InputError, match="a benchmark listed in params.yaml needs one"):
        load_spec(tmp_path / "none.yaml")


def test_bundled_benchmarks_are_the_worlds():
    for name, rows in benchmark_rows().items():
        with (ROOT / f"assets/testbed/benchmarks/{name}.csv").open(newline="") as file:
            assert list(csv.DictReader(file)) == rows


def test_benchmarks_never_meet_the_training_prompts():
    rng = np.random.default_rng(0)
    known = set()
    for category in world_categories():
        for concept in category.train_concepts:
            for _ in range(30):
                _, reply = lm.example(category, concept, rng)
                known |= {normalise(t) for t in json.loads(reply).values()}
    assert not known & {normalise(r["prompt"]) for rows in benchmark_rows().values() for r in rows}


def test_held_out_concepts_are_unseen_and_seen_ones_seen():
    train = {c for category in world_categories() for c in category.train_concepts}
    rows = benchmark_rows()
    assert not {r["concept"] for r in rows["heldout"]} & train
    assert {r["concept"] for r in rows["seen"]} <= train
    assert {r["concept"] for r in rows["lookalike"]} == set(world.LOOKALIKES)
