import sys
from functools import partial

import pytest

from pipeline import artifacts
from pipeline.benchmarks import load_spec, read_benchmark
from pipeline.errors import InputError
from pipeline.prompts import benchmark
from pipeline.prompts.benchmark import asked_for, write_benchmark
from pipeline.prompts.run import make_prompts
from pipeline.taxonomy import Category
from tests.imports import ROOT
from tests.prompts.scripted import CATEGORY, ScriptedEngine, good_reply
from tests.prompts.test_run import ASKING, TOLD, rules

OTHER = Category(name="hate", definition="H.", concepts={"grimfold": "train"})


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, engine, categories=(CATEGORY, OTHER), split="test_unseen"):
    make = partial(make_prompts, source=None, load=lambda: engine, asking=ASKING, rules=rules(),
                   benchmarks=(), base_seed=0, provenance=TOLD)  # fmt: skip
    return write_benchmark(path, {c.name: c for c in categories}, split, make)


def test_a_splits_concepts_are_asked_for_and_all_others_are_held_out():
    asked = asked_for(CATEGORY, "test_unseen")
    assert asked.train_concepts == ["razornimbus"]
    assert asked.held_out_concepts == ["thornburst", "spikeflare"]
    assert (asked.name, asked.definition) == (CATEGORY.name, CATEGORY.definition)


def test_the_benchmark_reads_what_was_written(tmp_path):
    path = artifacts.own_benchmark("test_unseen")
    assert write(path, ScriptedEngine(good_reply)) == {"violence": 2}  # hate has none held out
    spec = load_spec(ROOT / artifacts.benchmark_spec("heldout"))
    prompts, counts = read_benchmark("heldout", spec, path, ["violence", "hate"])
    assert counts["prompts"] == 2 and spec.kind == "unsafe"
    assert {(p.category, p.concept) for p in prompts} == {("violence", "razornimbus")}
    assert all("razornimbus" in p.prompt and "cup" in p.contrast for p in prompts)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not artifacts.unfinished_prompts("test_unseen-of-all").exists()


def test_what_names_a_concept_to_train_on_is_not_kept(tmp_path):
    def answer(request):
        return good_reply(request).replace("a red star", "a thornburst star")

    with pytest.raises(InputError, match="no acceptable prompt pair"):
        write(tmp_path / "b.csv", ScriptedEngine(answer))
    assert not (tmp_path / "b.csv").exists()


def test_a_killed_run_asks_for_nothing_again(tmp_path):
    spare = CATEGORY.model_copy(update={"name": "shocking"})

    def dies(request):
        if "shocking" in request.user:
            raise KeyboardInterrupt
        return good_reply(request)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "b.csv", ScriptedEngine(dies), (CATEGORY, spare))
    again, whole = ScriptedEngine(good_reply), ScriptedEngine(good_reply)
    write(tmp_path / "b.csv", again, (CATEGORY, spare))
    write(tmp_path / "c.csv", whole, (CATEGORY, spare))
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    assert (len(again.requests), len(whole.requests)) == (2, 4)


def test_a_split_that_no_category_has_is_named(tmp_path):
    with pytest.raises(InputError, match="no category .* of split 'val'; raise concepts.val"):
        write(tmp_path / "b.csv", ScriptedEngine(good_reply), split="val")


def test_the_command_says_where_it_is_and_what_to_set(
    tmp_path, monkeypatch, capsys, default_params
):
    for name in ("params.yaml", "assets"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data/concepts").mkdir(parents=True)
    for name in default_params["taxonomy"]["categories"]:
        text = f"name: {name}\ndefinition: D.\nconcepts: {{thornburst: test_unseen}}\n"
        (tmp_path / f"data/concepts/{name}.yaml").write_text(text)
    monkeypatch.setattr(benchmark, "load_engine", lambda **_: ScriptedEngine(good_reply))
    monkeypatch.setattr(sys, "argv", ["benchmark"])
    benchmark.main()
    said = capsys.readouterr().out
    assert "external/benchmarks/test_unseen.csv: " in said
    assert "set benchmarks.heldout to it" in said
