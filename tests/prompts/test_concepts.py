import stat

import pytest

from pipeline.errors import InputError
from pipeline.prompts.concepts import (
    Told,
    complete_categories,
    read_concepts,
    save_categories,
    split_of,
)
from pipeline.prompts.propose import Proposing
from pipeline.taxonomy import load_category
from tests.prompts.scripted import ScriptedEngine, category, listing

SHARES = {"val": 0.1, "test_unseen": 0.2}


def complete(categories, told=None, engine=None, count=4, exclusive=False, attempts=5):
    return complete_categories(
        {c.name: c for c in categories}, told or {}, engine, Proposing(count, 2, attempts), SHARES,
        0, exclusive,
    )  # fmt: skip


def test_a_category_keeps_what_its_file_lists_and_asks_no_model():
    own = category("hate", murkwedge="train", grimfold="test_unseen")
    found, metrics = complete([own])
    assert found == {"hate": own}
    assert metrics == {"hate": {"concepts": 2, "train": 1, "test_unseen": 1, "drops": {}}}


def test_concepts_of_a_users_file_are_split_by_hash_unless_it_says():
    told = {"hate": [Told("murk wedge", "val"), Told("grim fold", ""), Told("ink zag", "train")]}
    found, _ = complete([category("hate")], told)
    assert found["hate"].concepts == {
        "murk wedge": "val", "grim fold": split_of("grim fold", SHARES, 0), "ink zag": "train",
    }  # fmt: skip


def test_the_shares_of_splits_are_kept_and_a_split_is_the_concepts_own():
    splits = [split_of(f"concept {k}", SHARES, 0) for k in range(4000)]
    for split, share in {**SHARES, "train": 0.7}.items():
        assert splits.count(split) / 4000 == pytest.approx(share, abs=0.02)
    assert split_of("Concept 7!", SHARES, 0) == split_of("concept 7", SHARES, 0)
    other = [split_of(f"concept {k}", SHARES, 1) for k in range(4000)]
    assert other != splits


def test_the_model_is_asked_until_there_are_enough():
    names = iter("abcdefgh")
    engine = ScriptedEngine(lambda r: listing(f"mark {next(names)}", "mark a"))
    found, metrics = complete([category("hate")], engine=engine)
    assert list(found["hate"].concepts) == ["mark a", "mark b", "mark c", "mark d"]
    # two requests could have brought four; one concept came again in each but the first
    assert engine.batches == [2, 1, 1] and metrics["hate"]["drops"] == {"duplicate": 3}
    assert metrics["hate"]["wanted"] == metrics["hate"]["concepts"] == 4
    assert "known already" not in engine.requests[0].user
    assert "mark a" in engine.requests[2].user and "mark b" in engine.requests[2].user
    assert len({r.seed for r in engine.requests}) == 4


def test_too_few_concepts_are_told(caplog):
    engine = ScriptedEngine(lambda r: listing("murk wedge"))
    _, metrics = complete([category("hate")], engine=engine, attempts=2)
    assert (metrics["hate"]["concepts"], metrics["hate"]["wanted"]) == (1, 4)
    assert "category hate: the LLM proposed 1 concepts of the 4 wanted in 2 rounds" in caplog.text
    assert "murk" not in caplog.text


def test_a_concept_belongs_to_the_first_category_that_has_it():
    engine = ScriptedEngine(lambda r: listing("murk wedge", "wedge, murk", f"mark {r.seed}"))
    found, metrics = complete(
        [category("hate"), category("violence"), category("shocking", spike="train")],
        engine=engine, count=2,
    )  # fmt: skip
    assert "murk wedge" in found["hate"].concepts
    assert "murk wedge" not in found["violence"].concepts
    assert metrics["violence"]["drops"]["duplicate"] >= 2


def test_exclusive_tells_every_category_the_others_concepts():
    found, _ = complete(
        [category("hate", a="train"), category("violence", b="train", c="train")], exclusive=True
    )
    assert found["hate"].others == ["b", "c"] and found["violence"].others == ["a"]


def test_adding_a_category_leaves_the_others_as_they_were():
    def answer(request):
        return listing(*(f"mark {request.seed} {k}" for k in "ab"))

    before, _ = complete([category("hate")], engine=ScriptedEngine(answer))
    after, _ = complete([category("hate"), category("new")], engine=ScriptedEngine(answer))
    assert after["hate"] == before["hate"]


def test_a_category_without_a_concept_to_train_on_is_an_error():
    with pytest.raises(InputError, match="'hate' has no concept of split 'train'"):
        complete([category("hate")], engine=ScriptedEngine(lambda r: "no"))
    with pytest.raises(InputError, match="'hate' has no concept of split 'train'"):
        complete([category("hate", a="val")])


def test_two_files_may_not_claim_one_concept():
    with pytest.raises(InputError, match="'violence' lists a concept .*claimed by another"):
        complete([category("hate", a="train"), category("violence", a="train")])


def test_an_unknown_split_is_named():
    with pytest.raises(InputError, match="'hate' has 1 concepts with another split than train"):
        complete([category("hate")], {"hate": [Told("a", "dev")]})


def test_a_file_of_concepts_is_read_by_category(tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("\ufeffcategory,concept,split\nhate,murk wedge,val\nhate,grimfold,\n")
    assert read_concepts(file, ["hate", "violence"]) == {
        "hate": [Told("murk wedge", "val"), Told("grimfold", "")], "violence": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concept\nSECRET\n", "needs the columns concept,category"),
        ("concept,category\n", "needs the columns concept,category and rows"),
        ("concept,category\na child SECRET,sexual\n", r"line 2: .* \(sexualises_minors\)"),
        ("concept,category\nx,sexual\nSECRET,sexual\nsecret,sexual\n", "line 4: .* there already"),
        ("concept,category\n,sexual\n", r"line 2: .* \(length\)"),
        ("concept,category\nx,sexual\nx,SECRET\n", "line 3: the category is none of sexual; corr"),
    ],
)
def test_a_bad_file_of_concepts_is_refused_without_its_text(tmp_path, text, message):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_concepts(tmp_path / "c.csv", ["sexual"])
    assert "SECRET" not in str(error.value)


def test_a_missing_file_of_concepts_is_named(tmp_path):
    with pytest.raises(InputError, match="concepts.file: cannot read .*none.csv"):
        read_concepts(tmp_path / "none.csv", ["hate"])


def test_forms_of_one_word_are_one_concept():
    engine = ScriptedEngine(lambda r: listing("marching", "marched", "Marches", "spiking"))
    found, metrics = complete([category("hate")], engine=engine, count=2)
    assert list(found["hate"].concepts) == ["marching", "spiking"]
    assert metrics["hate"]["drops"] == {"duplicate": 2}


def test_a_file_must_serve_every_category_without_concepts_of_its_own():
    with pytest.raises(InputError, match="concepts.file has no concept of category 'violence'"):
        complete([category("hate"), category("violence")], {"hate": [Told("a mark", "train")]})


def test_saved_categories_are_private_and_read_as_they_were(tmp_path):
    own = category("hate", murkwedge="train").model_copy(update={"others": ["spike"]})
    save_categories(tmp_path / "concepts", [own])
    assert stat.S_IMODE((tmp_path / "concepts").stat().st_mode) == 0o700
    assert load_category(tmp_path / "concepts/hate.yaml") == own
