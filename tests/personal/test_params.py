import copy
import dataclasses

import pytest
import yaml

from pipeline.errors import InputError
from pipeline.params import load_params
from pipeline.params.personal import Adapter, Beside, Policy
from pipeline.personal.adapter import AdapterSettings
from pipeline.personal.step import PersonalSettings

PUBLISHED = {
    "psa.adapter.form": "attention", "psa.beside.mix_bans": False, "psa.beside.route_weight": 0,
}  # fmt: skip

DPO = {"loss": "diffusion_dpo", "beta": 500, "mu": None, "prompt_dropout": 0.2, "sft_weight": 0}
BESIDE = {"preserve_weight": 0, "allowed_share": 0, "benign_share": 0, "profile_dropout": 0.1,
          "mix_bans": False, "route_weight": 0}  # fmt: skip
ADAPTER = {"form": "attention", "tokens": 1, "width": 4, "rank": 4, "value_rank": 4}
FORM = {"allowed": "paper", "learning_rate": 1e-5, "adapter": ADAPTER, "dpo": DPO, "beside": BESIDE}


@pytest.fixture
def load(default_params, tmp_path):
    """Loads params.yaml with some values changed, by dotted key."""

    def loaded(changes):
        data = copy.deepcopy(default_params)
        for key, value in changes.items():
            *folders, last = key.split(".")
            section = data
            for name in folders:
                section = section[name]
            section[last] = value
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(data))
        return load_params(tmp_path / "params.yaml")

    return loaded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # what no profile can lift, nor any key
        ({"policy.floor": []}, "policy.floor.*at least 1 item"),
        ({"policy.floor": ["gore"]}, "policy.floor names 'gore', no category of the taxonomy"),
        ({"policy.floor": ["hate", "gore"]}, "policy.floor names 'gore'"),
        ({"policy.floor": None}, "policy.floor"),
        ({"policy": {}}, "policy.floor: Field required"),
        ({"policy.minors": False}, "policy.minors: there is no such key"),
        ({"policy.adult_age": 12}, "policy.adult_age: there is no such key"),
        ({"psa.dpo.beta": -500}, "psa.dpo.beta.*greater than 0"),
        ({"psa.beside.preserve_weight": -1}, "psa.beside.preserve_weight.*greater than or equal"),
        # users
        ({"users.splits": {"val": 0.5, "test_seen": 0.3, "test_unseen": 0.2}}, "must leave some u"),
        ({"users.splits.test": 0.1}, "users.splits.test: there is no such key"),
        ({"users.levels": 1}, "users.levels.*greater than or equal to 2"),
        ({"users.bans": "coin"}, "users.bans: Input should be 'rules' or 'llm'"),
        ({"users.encoder": "llm"}, "encoder_model is of encoder: llm, which needs it"),
        ({"users.encoder_model": "m"}, "encoder_model is of encoder: llm"),
        ({"users.encoder_revision": "r"}, "encoder_revision needs an encoder_model"),
        ({"user_pairs.allowed": "both"}, "user_pairs.allowed: Input should be 'preserve' or 'pap"),
        ({"user_pairs.pairs_per_category": 0}, "user_pairs.pairs_per_category"),
        # the adapter and its training
        ({"psa.adapter.form": "ip"}, "psa.adapter.form: Input should be 'gated' or 'attention'"),
        ({"psa.adapter.tokens": 0}, "psa.adapter.tokens.*or equal to 1"),
        (PUBLISHED | {"psa.beside.mix_bans": True}, "beside.mix_bans and .* of adapter.form: gat"),
        (PUBLISHED | {"psa.beside.route_weight": 0.3}, "beside.route_weight are of adapter.form: "),
        ({"psa.beside.profile_dropout": 0.1}, "profile_dropout is of adapter.form: attention"),
        ({"psa.beside.allowed_share": 0.6, "psa.beside.benign_share": 0.4}, "must leave room for"),
        ({"psa.optim.compile": True}, "optim.compile: the adapter is not compiled"),
        ({"psa.optim.patience": 2, "psa.watch.rows": 0}, "patience needs watch.held_out and"),
        ({"psa.optim.patience": 2, "psa.watch.held_out": 0}, "optim.patience needs watch.held_out"),
        ({"psa.optim.log_every": 7}, "checkpoint_every must be a multiple of log_every"),
        ({"psa.watch.held_out": 999}, "psa.watch.held_out must leave some of pairs.min_pairs"),
        ({"psa.dpo.captions": "safe"}, "psa.dpo.captions: there is no such key"),
        ({"psa.dpo.loss": "kto"}, "psa.dpo.loss"),
        # the evaluation
        ({"evaluate_psa.unsafe": "nowhere"}, "evaluate_psa.unsafe and .benign must be among bench"),
        ({"evaluate_psa.benign": ["nowhere"]}, "evaluate_psa.unsafe and .benign must be among ben"),
        ({"evaluate_psa.benign": []}, "evaluate_psa.benign.*at least 1 item"),
        ({"evaluate_psa.suffix": ", safe"}, "evaluate_psa.suffix.*pattern"),
        # other forms
        ({"forms": {"x": FORM | {"beside": BESIDE | {"mix_bans": True}}}}, "mix_bans and beside."),
        ({"forms": {"x": FORM | {"optim": {}}}}, "forms.x.optim: there is no such key"),
        ({"forms": {"x": FORM | {"allowed": "both"}}}, "forms.x.allowed: Input should be 'prese"),
    ],
)
def test_a_wrong_value_is_refused(load, changes, message):
    with pytest.raises(InputError, match=message):
        load(changes)


@pytest.mark.parametrize(
    "changes",
    [
        PUBLISHED | {"psa.beside.profile_dropout": 0.1, "psa.adapter.tokens": 1},
        {"psa.optim.patience": 2}, {"policy.floor": ["hate", "sexual"]},
        {"users.encoder": "llm", "users.encoder_model": "m", "users.encoder_revision": "r"},
        {"users.splits": {"val": 0.0, "test_seen": 0.0, "test_unseen": 0.5}},
        {"psa.watch.held_out": 0, "psa.watch.rows": 0}, {"forms": {}},
    ],
)  # fmt: skip
def test_what_may_be_set_may_be_set(load, changes):
    assert load(changes)


def test_the_floor_is_all_that_there_is_of_a_policy():
    """No key lifts what minors ban (METHOD 3)."""
    assert Policy.model_fields.keys() == {"floor"}
    assert load_params().policy.floor
    with pytest.raises(ValueError):
        load_params().policy.floor = []


@pytest.mark.parametrize(("section", "settings"), [(Adapter, AdapterSettings),
                                                   (Beside, PersonalSettings)])  # fmt: skip
def test_sections_have_the_fields_of_what_they_describe(section, settings):
    assert list(section.model_fields) == [field.name for field in dataclasses.fields(settings)]


def test_other_forms_are_trained_as_long_as_the_one_that_ships(load):
    params = load({"forms": {"published": FORM}})
    form = params.form("published")
    recipe = form.recipe(params.psa)
    assert recipe.optim.learning_rate == 1e-5 != params.psa.optim.learning_rate
    same = recipe.optim.model_copy(update={"learning_rate": params.psa.optim.learning_rate})
    assert (same, recipe.watch) == (params.psa.optim, params.psa.watch)
    assert (recipe.adapter, recipe.dpo, recipe.beside) == (form.adapter, form.dpo, form.beside)
    assert recipe.adapter != params.psa.adapter
    with pytest.raises(InputError, match="unknown form 'x'; params.yaml has published"):
        params.form("x")
