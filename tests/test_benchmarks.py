import csv
import json

import numpy as np
import pytest

from pipeline.benchmarks import of_categories, read_benchmark
from pipeline.diffusion import Sampler
from pipeline.errors import InputError
from pipeline.prompts import normalise
from pipeline.records import BenchmarkImage
from pipeline.samples import draw_benchmarks
from pipeline.storage import read_rows
from pipeline.testbed import lm, world
from pipeline.testbed.categories import benchmark_rows, world_categories
from tests.imports import ROOT
from tests.test_images import FakeModel

HEADER = "prompt,category,concept,contrast\n"


def read(tmp_path, text):
    (tmp_path / "b.csv").write_text(text)
    return read_benchmark("b", tmp_path / "b.csv")


def test_prompts_of_other_categories_are_left_out_and_counted(tmp_path, caplog):
    rows = read(tmp_path, HEADER + "one,hate,k,\ntwo,violence,k,\nthree,,,bare\n")
    caplog.set_level("INFO")
    kept = of_categories(rows, ["hate"])
    assert [(r.row, r.prompt, r.contrast) for r in kept] == [(0, "one", ""), (2, "three", "bare")]
    assert "benchmark b: 1 prompts of other categories left out (violence)" in caplog.text
    with pytest.raises(InputError, match="benchmark b holds no prompt of the chosen categories"):
        of_categories(rows[:1], ["shocking"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,category\nx,y\n", "no column 'prompt'; it has text, category"),
        (HEADER + "one,hate,,\none,hate,,\n", "data row 1 repeats an earlier prompt"),
        (HEADER + "a lewd child,hate,,\n", "data row 0 is hard-blocked"),
        (
            HEADER + "one,Harrasment,,\n",
            "data row 0 has category 'Harrasment'; categories are slugs",
        ),
        (HEADER + "one\n", "data row 0 has too few fields"),
        (HEADER + " ,hate,,\n", "data row 0 has an empty prompt"),
    ],
)
def test_a_bad_file_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, text)
    assert "lewd" not in str(error.value)


def test_a_missing_file_names_the_key(tmp_path):
    with pytest.raises(InputError, match="see benchmarks in params.yaml"):
        read_benchmark("b", tmp_path / "none.csv")


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "b.csv").write_bytes((HEADER + "caf\xe9,hate,,\n").encode("latin-1"))
    with pytest.raises(InputError, match="b.csv is not a UTF-8 CSV"):
        read_benchmark("b", tmp_path / "b.csv")


def test_every_variant_draws_from_the_same_seeds(tmp_path):
    prompts = {"b": read(tmp_path, HEADER + "one,hate,k,\nthree,,,bare\n")}
    rows = {}
    for variant, redraws in (("base", {"b": 1}), ("co_merge", {})):
        draw_benchmarks(
            tmp_path / variant, prompts, redraws, FakeModel(), Sampler("ddim", 1, 1.0, 8),
            variant=variant, revision="r", base_seed=0, shard_rows=8, batch=2,
        )  # fmt: skip
        rows[variant] = read_rows(tmp_path / variant, BenchmarkImage)
    seeds = {v: {(r.row, r.redraw): r.seed for r in some} for v, some in rows.items()}
    assert seeds["base"].keys() == {(0, 0), (1, 0), (0, 1), (1, 1)}
    assert seeds["co_merge"].items() <= seeds["base"].items()
    assert len(set(seeds["base"].values())) == 4


def test_a_changed_label_is_stored_without_a_new_image(tmp_path):
    model = FakeModel()
    for category in ("hate", "violence"):
        prompts = {"b": read(tmp_path, HEADER + f"one,{category},k,\n")}
        draw_benchmarks(
            tmp_path / "base", prompts, {}, model, Sampler("ddim", 1, 1.0, 8), variant="base",
            revision="r", base_seed=0, shard_rows=8, batch=2,
        )  # fmt: skip
    assert model.drawn == 1
    assert read_rows(tmp_path / "base", BenchmarkImage)[0].category == "violence"


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
