import copy
import dataclasses
import uuid
from pathlib import Path

import pytest
import torch

from pipeline.diffusion import NoiseSchedule, load_noise_schedule, load_unet
from pipeline.encode import encode_pairs
from pipeline.errors import InputError
from pipeline.latents import hold_out
from pipeline.params import load_params
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.files import load_adapter
from pipeline.personal.rows import PersonalRows
from pipeline.personal.step import PersonalSettings, PersonalStep
from pipeline.personal.training import (
    PersonalOutputs,
    PersonalRecipe,
    digest,
    train_adapter,
    train_and_save,
    user_batch,
)
from pipeline.personal.user_pairs import build_user_pairs
from pipeline.records import SAFE, UNSAFE, UserPair
from pipeline.sources import ModelSource
from pipeline.storage import read_csv, read_json
from pipeline.training.dpo import squared_error
from pipeline.training.loop import TrainSettings
from pipeline.training.preference import DpoSettings
from tests.personal.examples import (
    ATTENTION,
    GATED,
    make_space,
    make_user,
    predict,
    sdxl_unet,
    unet_inputs,
)
from tests.test_encode import BENIGN, MODEL, pair

CATEGORIES = ["hate", "violence"]
FLOOR = frozenset({"hate"})
DPO = DpoSettings(beta=200.0, mu=0.5, captions="both", prompt_dropout=0.0, sft_weight=1.0)
BESIDE = PersonalSettings(2.0, allowed_share=0.25, benign_share=0.2, mix_bans=True,
                          route_weight=0.2)  # fmt: skip
OPTIM = TrainSettings(
    learning_rate=0.02, warmup_steps=0, batch=4, max_steps=6, weight_decay=0.0, max_grad_norm=1.0,
    seed=0, checkpoint_every=2, log_every=2,
)  # fmt: skip
RECIPE = PersonalRecipe(GATED, DPO, BESIDE, OPTIM, held_out=1, watched=8)
PUBLISHED = dataclasses.replace(
    RECIPE, adapter=ATTENTION, beside=PersonalSettings(2.0, 0.3, profile_dropout=0.2)
)
RECIPES = pytest.mark.parametrize("recipe", [RECIPE, PUBLISHED], ids=["gated", "attention"])
USERS = [
    make_user("u", CATEGORIES, vector=[1, -1, 0.5, 0.25, 1]),
    make_user("v", FLOOR, vector=[-1, 1, 0.25, 1, 0.5]),
    make_user("w", FLOOR, "val", vector=[0, 1, 1, 0, 0]),
    make_user("x", CATEGORIES, "test_unseen", vector=[0, 0, 0, 1, 1]),
]


@pytest.fixture
def pairs(tiny_latents):
    """Four pairs of either category."""
    others = [f"{i}2" for i in tiny_latents.pair_ids]
    return {"hate": tiny_latents, "violence": dataclasses.replace(tiny_latents, pair_ids=others)}


def rows_of(users, pairs, allowed="preserve"):
    ids = {category: latents.pair_ids for category, latents in pairs.items()}
    return build_user_pairs(users, ids, FLOOR, allowed, 4, 0)[0]


@pytest.fixture
def train(tiny_unet, pairs, alphas_cumprod, tmp_path):
    def trained(recipe=RECIPE, users=USERS, rows=None, unet=None, pairs=pairs, folder=None):
        return train_adapter(
            unet or tiny_unet, pairs, users, rows_of(users, pairs) if rows is None else rows,
            NoiseSchedule(alphas_cumprod, "epsilon"), recipe,
            tmp_path / (folder or str(uuid.uuid4())),  # never the checkpoint of an earlier run
        )  # fmt: skip

    return trained


def weights(adapter):
    return {name: value.clone() for name, value in adapter.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def short(recipe, **optim):
    return dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, **optim))


@RECIPES
def test_training_is_deterministic_and_leaves_the_unet_as_it_was(train, tiny_unet, recipe):
    inputs = unet_inputs(tiny_unet)
    base = predict(tiny_unet, inputs)
    first, history = train(recipe)
    assert torch.equal(predict(tiny_unet, inputs), base)
    assert not any(m._forward_hooks for m in tiny_unet.modules())
    assert not tiny_unet.training
    again, same_history = train(recipe)
    assert same(weights(first), weights(again))
    assert history == same_history
    other, _ = train(short(recipe, seed=1))
    assert not same(weights(first), weights(other))
    assert [entry["step"] for entry in history] == [2, 4, 6]
    assert {"loss", "error/from_base", "eval/loss", "eval/rewards/accuracies"} <= history[0].keys()


@RECIPES
def test_every_weight_is_trained_in_fp32_also_under_bf16(train, recipe, tiny_unet):
    """METHOD 2.5 no. 2: most of the published projection never changed."""
    tiny = short(recipe, precision="bf16", learning_rate=1e-5)
    adapter, _ = train(tiny)
    fresh = PersonalAdapter(tiny_unet, recipe.adapter, CATEGORIES, 5, recipe.optim.seed)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    for (name, trained), start in zip(adapter.named_parameters(), fresh.parameters(), strict=True):
        # so near to the base model bf16 sees no difference, which is all that nobody learns from
        assert name == "tokens.nobody" or (trained != start).float().mean() > 0.9, name
    assert {p.dtype for n, p in tiny_unet.named_parameters() if p.ndim > 1} == {torch.bfloat16}


def test_a_run_that_fails_takes_its_adapter_along(train, tiny_unet, monkeypatch):
    monkeypatch.setattr(PersonalStep, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train()
    assert not any(m._forward_hooks for m in tiny_unet.modules())


def test_too_little_memory_names_the_sections_keys(train, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(PersonalStep, "__call__", full)
    with pytest.raises(InputError, match="none left.*psa.optim.micro_batch"):
        train()


def test_held_out_pairs_are_measured_on_validation_users_and_not_trained_on(train, pairs):
    held_out = [hold_out(p, 1)[1].pair_ids[0] for p in pairs.values()]
    poisoned = {}
    for (category, latents), pair_id in zip(pairs.items(), held_out, strict=True):
        rejected = latents.rejected_mean.clone()
        rejected[latents.pair_ids.index(pair_id)] = 1e3  # training on it would show
        poisoned[category] = dataclasses.replace(latents, rejected_mean=rejected)
    (clean, history), (other, other_history) = train(), train(pairs=poisoned)
    assert same(weights(clean), weights(other))
    assert [h["loss"] for h in history] == [h["loss"] for h in other_history]
    name = "eval/error/rejected"
    assert history[-1][name] != other_history[-1][name]


def spy_on_steps(monkeypatch):
    found = []

    class Spy(PersonalStep):
        def __init__(self, unet, adapter, users, latents, rows, *rest, **settings):
            found.append((latents.pair_ids, rows))
            super().__init__(unet, adapter, users, latents, rows, *rest, **settings)

    monkeypatch.setattr("pipeline.personal.training.PersonalStep", Spy)
    return found


def test_who_is_trained_on_and_who_is_watched(train, pairs, monkeypatch):
    found = spy_on_steps(monkeypatch)
    extra = rows_of([dataclasses.replace(USERS[3], split="train")], pairs)  # x, who is unseen
    train(rows=rows_of(USERS, pairs) + extra)
    (kept, trained), (held_out, watched) = found
    assert sorted(kept + held_out) == sorted(i for p in pairs.values() for i in p.pair_ids)
    assert held_out == [hold_out(p, 1)[1].pair_ids[0] for p in pairs.values()]
    assert set(trained.users.tolist()) == {0, 1}  # u and v
    assert len(trained) == 2 * 6 * 2  # users, pairs that are not held out, captions
    assert set(watched.users.tolist()) == {2}  # w
    assert len(watched) == 4  # of eight asked for: two pairs under two captions
    assert set(watched.pairs.tolist()) == {0, 1}


def test_which_rows_are_watched_is_the_same_whatever_their_order(train, pairs, monkeypatch):
    found, rows = spy_on_steps(monkeypatch), rows_of(USERS, pairs)
    few = dataclasses.replace(short(RECIPE, max_steps=2), watched=2)
    train(few)
    train(few, rows=rows[::-1])
    first, again = (sorted(zip(r.pairs.tolist(), r.prompts.tolist(), strict=True))
                    for _, r in found[1::2])  # fmt: skip
    assert first == again and len(first) == 2


def test_without_held_out_pairs_nothing_is_watched(train):
    for change in ({"held_out": 0}, {"watched": 0}):
        _, history = train(dataclasses.replace(short(RECIPE, max_steps=2), **change))
        assert not any(name.startswith("eval/") for name in history[-1])


def test_users_are_told_by_their_rows():
    batch = user_batch([*USERS, make_user("m", CATEGORIES, age=9)], CATEGORIES)
    assert batch.bans.tolist() == [[1, 1], [1, 0], [1, 0], [1, 1], [1, 1]]
    assert batch.vectors[:2].tolist() == [[1, -1, 0.5, 0.25, 1], [-1, 1, 0.25, 1, 0.5]]
    assert batch.known.all()
    assert user_batch(USERS, CATEGORIES[::-1]).bans[1].tolist() == [0, 1]


class Killed(Exception):
    """Stands for kill -9 in mid-run."""


def dies_at(monkeypatch, call):
    """Let the losses' function fail at a call; two are made of a batch, one more by measure."""
    calls = []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return squared_error(*arguments)

    monkeypatch.setattr("pipeline.personal.step.squared_error", dying)


@pytest.fixture
def source(tmp_path):
    """Writes a UNet and its noise as a diffusers folder, whose weights have an identity."""
    from diffusers import DDPMScheduler

    def written(unet):
        folder = tmp_path / "model"
        unet.save_pretrained(folder / "unet")
        DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
                      ).save_pretrained(folder / "scheduler")  # fmt: skip
        return ModelSource(str(folder))

    return written


SPACE = make_space(CATEGORIES, FLOOR)
FULL = [dataclasses.replace(u, vector=SPACE.only(FLOOR).vector.tobytes()) for u in USERS]


@pytest.fixture
def save(tmp_path, pairs):
    def saved(source, recipe=RECIPE, name="a", pairs=pairs, space=SPACE, users=FULL, rows=None):
        revised = {
            c: dataclasses.replace(p, base_revision=source.identity) for c, p in pairs.items()
        }
        folder = tmp_path / name
        out = PersonalOutputs(folder / "psa.safetensors", folder / "metrics.json",
                              folder / "steps.csv", folder / "checkpoints", None)  # fmt: skip
        train_and_save(
            source, revised, users, rows_of(users, pairs) if rows is None else rows, space,
            recipe, out,
        )  # fmt: skip
        return out

    return saved


def of_sdxl(pairs):
    """The same pairs for a model with pooled embeddings."""
    rng = torch.Generator().manual_seed(0)
    pooled = torch.randn(9, 6, generator=rng).half()
    return {c: dataclasses.replace(p, pooled_embeds=pooled) for c, p in pairs.items()}


@RECIPES
@pytest.mark.parametrize("shape", ["sd", "sdxl"])
def test_a_trained_adapter_is_saved_and_draws_the_same_when_loaded(
    source, save, pairs, tiny_unet, recipe, shape, monkeypatch
):
    unet, made = (tiny_unet if shape == "sd" else sdxl_unet()), []
    pairs = pairs if shape == "sd" else of_sdxl(pairs)
    monkeypatch.setattr(
        "pipeline.personal.training.train_adapter",
        lambda *a: (made.append(train_adapter(*a)), made[0])[1],
    )
    model = source(unet)
    out = save(model, recipe, pairs=pairs)
    adapter, history = made[0]
    loaded = load_adapter(out.adapter, unet, model.identity)
    users, inputs, drawn = user_batch(FULL[:2], CATEGORIES), unet_inputs(unet), []
    base = predict(unet, inputs)
    for some in (adapter, loaded.adapter):
        some.attach(unet)
        some.show(users)
        drawn.append(predict(unet, inputs))
        some.detach()
    assert torch.equal(*drawn)
    assert (drawn[0] - base).abs().max() > 1e-3
    assert not out.checkpoints.exists()
    metrics = read_json(out.metrics)
    assert metrics["steps"] == 6 and metrics["users"] == 2
    assert metrics["parameters"] == sum(p.numel() for p in adapter.parameters())
    assert metrics["eval/loss"] == pytest.approx(history[-1]["eval/loss"], abs=1e-5)
    assert loaded.provenance["metrics"] == metrics
    assert loaded.provenance["base_revision"] == model.identity
    assert loaded.provenance["users"] == digest(FULL, rows_of(FULL, pairs))
    assert [row["step"] for row in read_csv(out.steps)] == [2, 4, 6]


@RECIPES
def test_a_killed_run_resumes_to_the_same_bytes(source, save, tiny_unet, recipe, monkeypatch):
    model = source(tiny_unet)
    whole = save(model, recipe, "whole")
    for call in (13, 9):  # after the first checkpoint, then again after another one
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dies_at(patch, call)
            save(model, recipe, "cut")
    cut = save(model, recipe, "cut")
    assert cut.adapter.read_bytes() == whole.adapter.read_bytes()
    assert cut.metrics.read_bytes() == whole.metrics.read_bytes()
    assert cut.steps.read_bytes() == whole.steps.read_bytes()


def test_a_killed_run_leaves_checkpoints_and_goes_on_from_its_own_alone(
    train, monkeypatch, pairs, tmp_path, caplog
):
    def killed(folder, **told):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dies_at(patch, 13)
            train(folder=folder, **told)
        assert any((tmp_path / folder).glob("step-*"))

    whole = weights(train()[0])
    stricter = [dataclasses.replace(USERS[0], banned="hate"), *USERS[1:]]
    killed("same")
    killed("bans", users=stricter)
    killed("rows", rows=rows_of(USERS, pairs, "paper"))
    killed("recipe", recipe=dataclasses.replace(RECIPE, dpo=dataclasses.replace(DPO, beta=150.0)))
    with caplog.at_level("INFO"):
        assert same(weights(train(folder="same")[0]), whole)
        assert caplog.text.count("resuming") == 1
        for folder in ("bans", "rows", "recipe"):
            assert same(weights(train(folder=folder)[0]), whole)
        assert caplog.text.count("resuming") == 1
        assert caplog.text.count("belongs to other data or settings") == 3


def test_adapters_of_equal_runs_are_equal_files(source, save, tiny_unet):
    model = source(tiny_unet)
    contents = {save(model, short(RECIPE, max_steps=2), str(k)).adapter.read_bytes()
                for k in range(3)}  # fmt: skip
    assert len(contents) == 1


@pytest.fixture(scope="module")
def testbed_pairs():
    """Six pairs of violence and, for its gate alone, of hate."""
    latents = encode_pairs([pair(k) for k in range(6)], MODEL, 6, BENIGN)
    other = dataclasses.replace(latents, pair_ids=[f"{i}h" for i in latents.pair_ids])
    return {"hate": other, "violence": latents}


def measured(unet, adapter, latents, user, chosen):
    """What an adapter makes of a side's preference under unsafe captions of violence."""
    records = [UserPair(user.user_id, i, "violence", UNSAFE, chosen) for i in latents.pair_ids]
    rows = PersonalRows.of(records, {user.user_id: 0}, latents, CATEGORIES)
    adapter.attach(unet)
    found = PersonalStep(
        unet, adapter, user_batch([user], CATEGORIES), latents, rows, load_noise_schedule(MODEL),
        LEARNING.dpo, PersonalSettings(), fixed=4,
    ).measure()  # fmt: skip
    adapter.detach()
    return found


LEARNING = PersonalRecipe(
    AdapterSettings("gated", 4, 16, 16, 8), dataclasses.replace(DPO, beta=500.0, sft_weight=0.0),
    PersonalSettings(preserve_weight=3.0, allowed_share=0.3),
    dataclasses.replace(OPTIM, batch=8, max_steps=20, log_every=20, checkpoint_every=20),
)  # fmt: skip


@pytest.mark.parametrize(("form", "allowed", "rate"), [
    ("gated", "preserve", 0.01), ("attention", "preserve", 0.003), ("attention", "paper", 0.003),
])  # fmt: skip
def test_a_preference_is_learned_for_who_bans_and_not_for_who_allows(
    testbed_pairs, tmp_path, form, allowed, rate
):
    unet, latents, (u, v) = load_unet(MODEL), testbed_pairs["violence"], USERS[:2]
    recipe = dataclasses.replace(LEARNING, adapter=dataclasses.replace(LEARNING.adapter, form=form))
    rows = [r for r in rows_of([u, v], testbed_pairs, allowed) if r.category == "violence"]
    adapter, history = train_adapter(
        unet, testbed_pairs, [u, v], rows, load_noise_schedule(MODEL),
        short(recipe, learning_rate=rate), tmp_path,
    )  # fmt: skip
    banned = measured(unet, adapter, latents, u, SAFE)
    assert banned["rewards/accuracies"] > 0.9
    assert banned["rewards/margins"] > 2
    if allowed == "preserve":
        kept = measured(unet, adapter, latents, v, SAFE)
        assert abs(kept["rewards/margins"]) < 0.2 * banned["rewards/margins"]
    else:
        assert measured(unet, adapter, latents, v, UNSAFE)["rewards/margins"] > 2


def test_latents_or_users_of_something_else_are_refused(source, save, pairs, tiny_unet):
    model = source(tiny_unet)
    foreign = {c: dataclasses.replace(p, base_revision="other") for c, p in pairs.items()}
    out = PersonalOutputs(*(Path("nowhere"),) * 4, None)
    with pytest.raises(InputError, match="latents of hate come from base model other"):
        train_and_save(model, foreign, FULL, rows_of(FULL, pairs), SPACE, RECIPE, out)
    for categories in (["violence", "hate"], ["hate", "violence", "sexual"]):
        told = ", ".join(categories)
        with pytest.raises(InputError, match=f"users know the categories {told}, the pairs are of"):
            save(model, space=make_space(categories, FLOOR))


@pytest.mark.parametrize(
    ("users", "rows"),
    [([make_user("v", vector=[1] * 5)], None),  # who bans nothing, were there no floor
     ([USERS[2], USERS[3]], None), (USERS, [])],
)  # fmt: skip
def test_nobody_who_prefers_anything_is_refused(train, pairs, users, rows):
    if rows is None:
        rows = [dataclasses.replace(r, chosen="base") for r in rows_of(users, pairs)]
    with pytest.raises(InputError, match="no user prefers anything: nobody who is trained on bans"):
        train(users=users, rows=rows)


def test_a_reversed_preference_and_other_latents_are_refused(train, pairs):
    for change, fault in (
        ({"margin": -pairs["hate"].margin}, "violence worse .* is reversed"),
        ({"prompt_embeds": torch.zeros(9, 6, 16).half()}, "text width 16"),
    ):
        wrong = pairs | {"violence": dataclasses.replace(pairs["violence"], **change)}
        with pytest.raises(InputError, match=fault):
            train(pairs=wrong)
    with pytest.raises(ValueError, match="beta must be positive"):
        train(dataclasses.replace(RECIPE, dpo=dataclasses.replace(DPO, beta=-200.0)))


@pytest.mark.parametrize("change", [{"pair_id": "gone"}, {"user_id": "gone"}])
def test_rows_of_users_or_pairs_that_are_not_there_are_refused(train, pairs, change):
    rows = rows_of(USERS, pairs)
    with pytest.raises(InputError, match="build_user_pairs"):
        train(short(RECIPE, max_steps=2), rows=[*rows, dataclasses.replace(rows[0], **change)])


@RECIPES
def test_gradient_checkpointing_trains_the_same_weights(train, recipe, tiny_unet):
    plain, _ = train(recipe, unet=copy.deepcopy(tiny_unet))
    saving, _ = train(short(recipe, gradient_checkpointing=True), unet=copy.deepcopy(tiny_unet))
    one, other = weights(plain), weights(saving)
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_holding_out_all_pairs_names_the_key_to_lower(train):
    with pytest.raises(InputError, match="psa.watch.held_out"):
        train(dataclasses.replace(RECIPE, held_out=4))


def test_a_recipe_is_the_section_of_the_parameters():
    params = load_params()
    recipe = PersonalRecipe.of(params.psa.model_dump(), seed=7)
    assert recipe.adapter == AdapterSettings(**params.psa.adapter.model_dump())
    assert recipe.dpo.captions == "both"
    assert (recipe.dpo.beta, recipe.optim.seed) == (params.psa.dpo.beta, 7)
    assert recipe.beside == PersonalSettings(**params.psa.beside.model_dump())
    assert (recipe.held_out, recipe.watched) == (params.psa.watch.held_out, params.psa.watch.rows)
    shaping = recipe.shaping
    assert shaping["optim"]["learning_rate"] == params.psa.optim.learning_rate
    assert not {"checkpoints", "checkpoint_every"} & shaping["optim"].keys()
