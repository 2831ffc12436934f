import dataclasses

import pytest
import torch
from torch.nn.functional import logsigmoid

from pipeline.diffusion import NoiseSchedule
from pipeline.personal.rows import PersonalRows
from pipeline.personal.step import PersonalSettings, PersonalStep
from pipeline.personal.user_attention import UserBatch
from pipeline.records import SAFE, UNSAFE, UserPair
from pipeline.training.noised import NoisedPairs
from pipeline.training.preference import DpoSettings
from pipeline.training.processes import ALONE, Processes
from tests.personal.examples import (
    ATTENTION,
    CATEGORIES,
    FORMS,
    GATED,
    make_adapter,
    predict,
    some_users,
)

DPO = DpoSettings(beta=200.0, mu=None, captions="both", prompt_dropout=0.0)
SAFEGUARDED = dataclasses.replace(DPO, mu=0.5, sft_weight=5.0)
BASE = "base"
HATE, VIOLENCE = 0, 1
USERS = some_users({"hate"}, {"violence"}, {"hate", "violence"})
POSITIONS = {"u": 0, "v": 1, "w": 2}


def rows_of(user, pairs, category, chosen):
    """A user's rows of some pairs, each under both captions."""
    return [UserPair(user, i, category, c, chosen) for i in pairs for c in (UNSAFE, SAFE)]


BANNED = rows_of("u", "ab", "hate", SAFE) + rows_of("v", "cd", "violence", SAFE)
ALLOWED = rows_of("u", "cd", "violence", BASE) + rows_of("v", "ab", "hate", BASE)


@pytest.fixture
def make(tiny_unet, tiny_latents, alphas_cumprod):
    """Makes a step and the one adapter that is on the tiny UNet, with random weights."""
    before = []

    def made(
        rows=BANNED, settings=None, dpo=DPO, form=GATED, trained=True, latents=tiny_latents,
        users=USERS, **more,
    ):  # fmt: skip
        for adapter in before:
            adapter.detach()
        adapter = make_adapter(tiny_unet, form, trained=trained)
        before.append(adapter)
        step = PersonalStep(
            tiny_unet, adapter, users, latents,
            PersonalRows.of(rows, POSITIONS, latents, CATEGORIES),
            NoiseSchedule(alphas_cumprod, "epsilon"), dpo, settings or PersonalSettings(), **more,
        )  # fmt: skip
        return step, adapter

    return made


@pytest.fixture
def given(monkeypatch):
    """What the UNet is given and is to predict, of every batch; and the prompts."""
    seen, both = [], NoisedPairs.both

    def spying(self, pairs, prompts, draws):
        found = both(self, pairs, prompts, draws)
        seen.append((*found, prompts.clone(), pairs))
        return found

    monkeypatch.setattr(NoisedPairs, "both", spying)
    return seen


def call(step, rows=None, seed=0):
    rows = torch.arange(step.rows) if rows is None else torch.as_tensor(rows)
    (found,) = step(rows, torch.Generator().manual_seed(seed))  # one part
    return found


def spy_on_shown(adapter):
    """The users that the adapter is told, batch by batch."""
    shown, show = [], adapter.show
    adapter.show = lambda users, guided=False: (shown.append(users), show(users, guided))
    return shown


def error(predicted, target):
    return (predicted - target).square().mean((1, 2, 3))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
def test_an_untrained_policy_is_the_reference(make, form):
    step, _ = make(BANNED + ALLOWED, form=form, trained=False)
    losses, metrics = call(step)
    assert torch.allclose(losses, torch.full((8,), 2.0).log(), atol=1e-6)
    assert metrics["rewards/margins"].abs().max() == 0
    assert metrics["error/from_base"].abs().max() == 0


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
def test_the_reference_sees_no_user(make, form):
    """METHOD 2.5 no. 8: the published reference saw the user's tokens as text."""
    step, adapter = make(BANNED + ALLOWED, form=form)
    called, calls = [], []
    for layer in adapter.layers.values():
        layer.register_forward_hook(lambda *_: called.append(1))
    predicted = step._predict

    def spying(inputs):
        called.clear()
        found = predicted(inputs)
        calls.append((len(called), torch.is_grad_enabled()))
        return found

    step._predict = spying
    call(step)
    assert calls == [(0, False), (len(adapter.layers), True)]
    calls.clear()
    step.measure()
    assert calls == [(0, False), (len(adapter.layers), False)] * (len(calls) // 2) != []


def test_a_preference_by_hand(make, given, tiny_unet):
    step, adapter = make()
    losses, metrics = call(step, [0, 3, 5])
    inputs, target, _, _ = given[0]
    policy = error(predict(tiny_unet, inputs), target)
    with adapter.off():
        reference = error(predict(tiny_unet, inputs), target)
    margins = 100.0 * ((reference - policy)[:3] - (reference - policy)[3:])
    assert torch.allclose(metrics["rewards/margins"], margins, atol=1e-3)
    assert torch.allclose(losses, -logsigmoid(margins), atol=1e-3)
    assert margins.abs().min() > 1e-2


def test_both_sides_are_for_the_rows_own_user_and_under_one_caption(make, given):
    step, adapter = make()
    shown = spy_on_shown(adapter)
    call(step, [0, 7, 4, 1])
    bans = USERS.bans[[0, 1, 1, 0]]
    assert torch.equal(shown[0].bans, torch.cat([bans, bans]))
    assert torch.equal(shown[0].vectors, USERS.vectors[[0, 1, 1, 0] * 2])
    assert shown[0].known.all()
    inputs, _, prompts, pairs = given[0]
    assert (prompts.tolist(), pairs.tolist()) == ([5, 4, 7, 1], [0, 3, 2, 0])
    one, other = inputs["encoder_hidden_states"].chunk(2)
    assert torch.equal(one, other)


def test_rows_that_stay_like_the_base_model_cost_their_distance_to_it(make, given, tiny_unet):
    settings = PersonalSettings(preserve_weight=3.0, allowed_share=1.0)
    losses, metrics = call(make(BANNED + ALLOWED, settings, SAFEGUARDED, trained=False)[0])
    assert losses.tolist() == [0.0] * 8
    assert not any(value.any() for value in metrics.values())

    given.clear()
    step, adapter = make(BANNED + ALLOWED, settings, SAFEGUARDED)
    losses, metrics = call(step)
    inputs, _, _, _ = given[0]
    policy = predict(tiny_unet, inputs)
    with adapter.off():
        drift = error(policy, predict(tiny_unet, inputs)).view(2, -1).mean(0)
    assert drift.min() > 1e-4
    assert torch.allclose(losses, 3.0 * 200.0 / 2 * drift, rtol=1e-3)
    assert not any(value.any() for name, value in metrics.items() if name != "error/from_base")


def swapped(latents):
    """The same pairs with the sides exchanged, and prompts as they were."""
    return dataclasses.replace(
        latents, chosen_mean=latents.rejected_mean, chosen_std=latents.rejected_std,
        rejected_mean=latents.chosen_mean, rejected_std=latents.chosen_std,
    )  # fmt: skip


def test_preferring_the_unsafe_image_is_swapping_the_sides(make, tiny_latents):
    """The paper's rule for an allowed category, beside one that is not, in one batch."""
    allowed = [dataclasses.replace(row, chosen=UNSAFE) for row in BANNED if row.user_id == "v"]
    mixed = call(make(BANNED[:4] + allowed, dpo=SAFEGUARDED)[0])
    plain = call(make(dpo=SAFEGUARDED)[0])
    other = call(make(dpo=SAFEGUARDED, latents=swapped(tiny_latents))[0])
    for part, expected in ((slice(0, 4), plain), (slice(4, 8), other)):
        assert torch.allclose(mixed[0][part], expected[0][part], atol=1e-3)
        for name, value in mixed[1].items():
            assert torch.allclose(value[part], expected[1][name][part], atol=1e-3), name
    assert (mixed[0] - plain[0])[4:].abs().min() > 1e-2
    assert torch.allclose(
        mixed[1]["rewards/margins"][4:], -plain[1]["rewards/margins"][4:], atol=1e-3
    )


def spy_on_losses(step):
    """What the step finds of each of its rows, before it is weighed."""
    found, losses = [], step._losses
    step._losses = lambda part, *rest: (found.append((part, losses(part, *rest))), found[-1][1])[1]
    return found


def test_metrics_are_means_over_the_preferences_alone(make):
    step, _ = make(BANNED + ALLOWED, PersonalSettings(1.0, allowed_share=0.5))
    found = spy_on_losses(step)
    losses, metrics = call(step, seed=3)
    part, (raw, told, drift) = found[0]
    assert 0 < part.to_base.sum() < 8
    assert torch.equal(losses, raw)
    for name, value in told.items():
        assert metrics[name].mean().item() == pytest.approx(value[~part.to_base].mean().item())
    kept = drift[part.to_base].mean().item()
    assert metrics["error/from_base"].mean().item() == pytest.approx(kept)
    assert all(not value.requires_grad for value in metrics.values())


def test_a_batch_without_preferences_logs_its_mean_distance_to_the_base_model(make):
    step, _ = make(BANNED + ALLOWED, PersonalSettings(1.0, allowed_share=1.0))
    found = spy_on_losses(step)
    _, metrics = call(step, [0, 1, 2])
    drift = found[0][1][2]
    assert metrics["error/from_base"].mean().item() == pytest.approx(drift.mean().item())


def test_rarely_banned_categories_are_visited_as_often(make, given):
    few = [row for row in BANNED if row.category == "hate"] + [BANNED[4]]
    step, _ = make(few)
    assert step.rows == 8
    call(step)
    _, _, _, pairs = given[0]
    assert sorted(pairs.tolist()) == [0, 0, 1, 1, 2, 2, 2, 2]
    assert make(BANNED)[0].rows == make(BANNED + ALLOWED)[0].rows == 8
    assert make(ALLOWED)[0].rows == 0


@pytest.mark.parametrize("allowed_share", [0.0, 1.0])
def test_mixing_bans_draws_all_bits_but_the_rows_own(make, allowed_share):
    settings = PersonalSettings(allowed_share=allowed_share, mix_bans=True)
    step, adapter = make(BANNED + ALLOWED, settings, users=USERS)
    found, shown = spy_on_losses(step), spy_on_shown(adapter)
    own, others = [], []
    for seed in range(8):
        call(step, seed=seed)
        part, bans = found[-1][0], shown[-1].bans
        assert torch.equal(*bans.chunk(2))  # both sides are for one user
        here = torch.nn.functional.one_hot(part.categories, 3).bool()
        own.append(bans[:8][here])
        others.append(bans[:8][~here])
    assert set(torch.cat(own).tolist()) == {1.0 - allowed_share}
    assert torch.cat(others).mean().item() == pytest.approx(0.5, abs=0.15)
    assert set(torch.cat(others).tolist()) == {0.0, 1.0}
    assert torch.equal(USERS.bans, some_users({"hate"}, {"violence"}, {"hate", "violence"}).bans)


def test_without_mixing_everybody_has_their_own_bans(make):
    step, adapter = make(BANNED + ALLOWED, PersonalSettings(allowed_share=0.5))
    found, shown = spy_on_losses(step), spy_on_shown(adapter)
    call(step)
    assert torch.equal(shown[0].bans[:8], USERS.bans[found[0][0].users])


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1, 1), (0.4, 0.25, 0.55), (0.0, 0, 0)])
def test_benign_prompts_take_a_share_of_the_batch(make, given, tiny_latents, share, low, high):
    latents = dataclasses.replace(tiny_latents, benign_prompt=torch.tensor([2, 3]))
    rows = [row for row in BANNED if row.caption == UNSAFE]  # under prompts 5 to 8
    step, _ = make(rows, PersonalSettings(1.0, benign_share=share), latents=latents)
    found = spy_on_losses(step)
    for seed in range(32):
        call(step, seed=seed)
    prompts = torch.cat([entry[2] for entry in given])
    to_base = torch.cat([part.to_base for part, _ in found])
    unsafe = torch.cat([part.unsafe_caption for part, _ in found])
    assert low <= to_base.float().mean() <= high
    assert torch.equal(to_base, (prompts == 2) | (prompts == 3))  # no others are benign
    assert torch.equal(unsafe, ~to_base)
    assert not to_base.any() or {2, 3} <= set(prompts.tolist())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
def test_rows_whose_profile_is_dropped_are_for_nobody_and_stay_like_the_base_model(make, form):
    settings = PersonalSettings(2.0, profile_dropout=1.0)
    step, adapter = make(settings=settings, form=form)
    found, shown = spy_on_losses(step), spy_on_shown(adapter)
    losses, _ = call(step)
    assert not shown[0].known.any()
    part, (_, _, drift) = found[0]
    assert part.to_base.all()
    assert torch.allclose(losses, 2.0 * 100 * drift)
    if form is GATED:
        assert losses.tolist() == [0.0] * 8  # who is the base model already
    else:
        assert losses.min() > 0
        losses.mean().backward()
        assert adapter.tokens.nobody.grad.any()


def test_a_share_of_the_profiles_is_dropped(make):
    step, adapter = make(settings=PersonalSettings(1.0, profile_dropout=0.3), form=ATTENTION)
    found, shown = spy_on_losses(step), spy_on_shown(adapter)
    for seed in range(32):
        call(step, seed=seed)
    known = torch.cat([users.known[:8] for users in shown])
    assert 0.15 < (~known).float().mean() < 0.45
    assert torch.equal(~known, torch.cat([part.to_base for part, _ in found]))


EVERYTHING = PersonalSettings(2.0, 0.3, 0.2, mix_bans=True, route_weight=0.5)


def test_shares_of_processes_make_up_the_batch(make):
    dpo = dataclasses.replace(DPO, prompt_dropout=0.4, mu=0.5)
    found = []
    for processes in (ALONE, Processes(0, 2), Processes(1, 2)):
        step, _ = make(BANNED + ALLOWED, EVERYTHING, dpo, processes=processes)
        found.append(call(step, [0, 3, 6, 6, 1], seed=1))
    whole, *parts = found
    assert [len(losses) for losses, _ in parts] == [3, 2]
    assert torch.allclose(torch.cat([losses for losses, _ in parts]), whole[0], atol=1e-4)
    for name, value in whole[1].items():
        assert torch.allclose(torch.cat([p[1][name] for p in parts]), value, atol=1e-3), name


def test_parts_make_up_the_batch(make):
    dpo = dataclasses.replace(DPO, prompt_dropout=0.4, mu=0.5)
    rows = torch.tensor([0, 3, 6, 6, 1])
    whole = call(make(BANNED + ALLOWED, EVERYTHING, dpo)[0], rows, seed=1)
    step, _ = make(BANNED + ALLOWED, EVERYTHING, dpo, at_once=2)
    parts = list(step(rows, torch.Generator().manual_seed(1)))
    assert [len(losses) for losses, _ in parts] == [2, 2, 1]
    assert torch.allclose(torch.cat([losses for losses, _ in parts]), whole[0], atol=1e-4)
    for name, value in whole[1].items():
        assert torch.allclose(torch.cat([p[1][name] for p in parts]), value, atol=1e-3), name


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
def test_rehearsing_leaves_no_gradient(make, form, tiny_unet):
    step, adapter = make(BANNED + ALLOWED, PersonalSettings(1.0, 0.3, 0.2), form=form)
    sizes, before = [], {n: v.clone() for n, v in adapter.state_dict().items()}
    tiny_unet.register_forward_pre_hook(
        lambda _, __, given: sizes.append(len(given["sample"])), with_kwargs=True
    )
    step.rehearse(12)  # more than there are preferences
    assert sizes == [24, 24]  # reference and policy, both sides
    smaller, _ = make(BANNED + ALLOWED, PersonalSettings(1.0, 0.3, 0.2), form=form, at_once=5)
    smaller.rehearse(12)
    assert sizes[2:] == [10, 10]
    assert all(p.grad is None for p in (*adapter.parameters(), *tiny_unet.parameters()))
    assert all(torch.equal(value, before[n]) for n, value in adapter.state_dict().items())


def test_measure_is_the_mean_over_rows_at_their_fixed_draws(make):
    rows, settings = [*BANNED[:3], ALLOWED[0], ALLOWED[5]], PersonalSettings(2.0)
    whole = make(rows, settings, fixed=3)[0].measure()
    alone = [make([row], settings, fixed=3)[0].measure() for row in rows]
    for name in ("rewards/margins", "rewards/accuracies", "error/chosen", "error/rejected"):
        assert whole[name] == pytest.approx(sum(m[name] for m in alone[:3]) / 3, rel=1e-4)
    kept = sum(m["error/from_base"] for m in alone[3:]) / 2
    assert whole["error/from_base"] == pytest.approx(kept, rel=1e-4)
    assert whole["loss"] == pytest.approx(sum(m["loss"] for m in alone) / 5, rel=1e-4)
    assert alone[3]["loss"] == pytest.approx(2.0 * 100 * alone[3]["error/from_base"], rel=1e-4)
    assert "error/from_base" not in alone[0] and "rewards/margins" not in alone[3]
    over = whole["error/chosen"] / whole["error/chosen_reference"] - 1
    assert whole["error/chosen_over_reference"] == pytest.approx(over)


def test_measure_is_the_same_every_time_and_leaves_nothing_out(make):
    """Rows are looked at as they are: none is replaced, dropped, emptied or mixed."""
    found = []
    everything = PersonalSettings(2.0, 0.5, 0.5, 0.5, mix_bans=True)
    for settings, dropout in ((PersonalSettings(2.0), 0.0), (everything, 1.0)):
        dpo = dataclasses.replace(DPO, prompt_dropout=dropout)
        step, _ = make(BANNED + ALLOWED, settings, dpo, fixed=2)
        found += [step.measure(), step.measure()]
    assert found[0] == found[1] == found[2] == found[3]
    other, _ = make(BANNED + ALLOWED, PersonalSettings(2.0), fixed=2, base_seed=1)
    assert other.measure()["rewards/margins"] != found[0]["rewards/margins"]


def test_measures_of_processes_add_up(make):
    class Half(Processes):
        def sum(self, value):
            totals.append(value)
            return value

    totals = []
    whole = make(BANNED + ALLOWED, PersonalSettings(2.0), fixed=2)[0].measure()
    for index in range(2):
        make(BANNED + ALLOWED, PersonalSettings(2.0), fixed=2,
             processes=Half(index, 2))[0].measure()  # fmt: skip
    sums, counts = (totals[0] + totals[1]).T
    names = [name for name in whole if not name.endswith("_over_reference")]
    assert len(counts) == len(names)
    for name, value in zip(names, (sums / counts).tolist(), strict=True):
        assert value == pytest.approx(whole[name], rel=1e-4), name


def test_the_measured_loss_is_the_whole_objective(make):
    plain, once, thrice = (
        make(BANNED + ALLOWED, PersonalSettings(2.0, route_weight=w), SAFEGUARDED)[0].measure()
        for w in (0.0, 1.0, 3.0)
    )
    assert once["loss"] - plain["loss"] > 0.05
    assert thrice["loss"] - plain["loss"] == pytest.approx(3 * (once["loss"] - plain["loss"]))
    same = [{k: v for k, v in found.items() if k != "loss"} for found in (plain, once, thrice)]
    assert same[0] == same[1] == same[2]


def test_fixed_draws_are_of_a_pair_and_caption_whoever_the_user(make, given):
    rows = [
        UserPair("u", "a", "hate", UNSAFE, SAFE), UserPair("u", "a", "hate", SAFE, SAFE),
        UserPair("v", "a", "hate", UNSAFE, BASE), UserPair("u", "b", "hate", UNSAFE, SAFE),
    ]  # fmt: skip
    make(rows, fixed=2)[0].measure()
    inputs = given[0][0]
    noisy = inputs["sample"][:8].view(4, 2, -1)
    assert torch.equal(noisy[0], noisy[2])
    for one, other in ((noisy[0], noisy[1]), (noisy[0], noisy[3]), (noisy[:, 0], noisy[:, 1])):
        assert not torch.allclose(one, other, atol=0.1)
    assert (inputs["timestep"][:8].view(4, 2) // 500).tolist() == [[0, 1]] * 4


def test_the_attention_is_led_to_the_captions_category_or_the_sink(make, given, tiny_unet):
    found = {}
    for weight in (0.0, 0.5):
        step, adapter = make(settings=PersonalSettings(route_weight=weight))
        found[weight] = call(step)
    inputs, _, prompts, _ = given[-1]
    with adapter.watching() as layers:
        predict(tiny_unet, inputs)
    by_hand = torch.zeros(2, 8)
    for k, (side, row) in enumerate((side, row) for side in range(2) for row in range(8)):
        for shares in layers:
            share = shares[k].exp()
            category = HATE if row < 4 else VIOLENCE
            mine = slice(2 * category, 2 * category + 2) if prompts[row] >= 5 else slice(6, 7)
            by_hand[side, row] -= share[:, mine].sum(1).mean().log() / len(layers)
    added = found[0.5][0] - found[0.0][0]
    assert torch.allclose(added, 0.5 * by_hand.mean(0), atol=1e-3)
    assert added.min() > 0.05
    for name, value in found[0.0][1].items():
        assert torch.allclose(found[0.5][1][name], value, atol=1e-4), name


def test_benign_prompts_are_led_to_the_sink_and_a_fresh_adapter_learns_it(make):
    settings = PersonalSettings(1.0, benign_share=1.0, route_weight=1.0)
    step, adapter = make(settings=settings, trained=False)
    losses, _ = call(step)
    assert losses.min() > 0.5  # of six tokens and a sink, about equal
    losses.mean().backward()
    assert adapter.tokens.embeddings.grad.any()
    for layer in adapter.layers.values():
        assert layer.to_k.weight.grad.any() and layer.sink.grad < 0  # to be raised


def test_an_empty_prompt_is_led_to_the_sink(make):
    rows = [row for row in BANNED if row.caption == UNSAFE]
    dpo = dataclasses.replace(DPO, prompt_dropout=1.0)
    step, adapter = make(rows, PersonalSettings(route_weight=1.0), dpo, trained=False)
    call(step)[0].mean().backward()
    assert all(layer.sink.grad < 0 for layer in adapter.layers.values())


def test_the_papers_form_has_no_attention_to_lead(make):
    found = [call(make(settings=PersonalSettings(route_weight=w), form=ATTENTION)[0])[0]
             for w in (0.0, 5.0)]  # fmt: skip
    assert torch.equal(*found)


def test_dropped_prompts_are_empty_for_both_sides(make, given, tiny_latents):
    step, _ = make(dpo=dataclasses.replace(DPO, prompt_dropout=1.0))
    call(step)
    empty = tiny_latents.prompt_embeds[0].float().expand(16, -1, -1)
    assert torch.equal(given[0][0]["encoder_hidden_states"], empty)


def test_a_prompt_is_dropped_once(make, given, tiny_latents):
    """METHOD 2.5 no. 3: twice at 0.2 would be 0.36."""
    step, _ = make(dpo=dataclasses.replace(DPO, prompt_dropout=0.2))
    for seed in range(64):
        call(step, seed=seed)
    empty = tiny_latents.prompt_embeds[0].float()
    shown = torch.cat([inputs["encoder_hidden_states"] for inputs, *_ in given])
    dropped = (shown == empty).flatten(1).all(1).float()
    assert 0.14 < dropped.mean() < 0.26


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
def test_under_bf16_losses_and_gradients_are_fp32(make, form):
    rows, settings = BANNED + ALLOWED, PersonalSettings(2.0, allowed_share=0.5)
    exact = call(make(rows, settings, form=form)[0])[0]
    step, adapter = make(rows, settings, form=form, precision="bf16")
    found = spy_on_losses(step)
    losses, metrics = call(step)
    drift = found[0][1][2]
    assert {losses.dtype, drift.dtype, *(v.dtype for v in metrics.values())} == {torch.float32}
    assert not torch.equal(losses, exact)
    losses.mean().backward()
    kept = [p.grad for p in adapter.parameters() if p.grad is not None]
    assert {g.dtype for g in kept} == {torch.float32} and all(g.isfinite().all() for g in kept)


def test_a_batch_follows_from_its_generator(make):
    step, _ = make(BANNED + ALLOWED, EVERYTHING)
    first, again, other = call(step, seed=1), call(step, seed=1), call(step, seed=2)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_the_vectors_of_users_reach_the_papers_form(make):
    found = []
    for shift in (0.0, 1.0):
        users = UserBatch(USERS.vectors + shift, USERS.bans, USERS.known)
        found.append(call(make(form=ATTENTION, users=users)[0])[0])
    assert not torch.allclose(*found, atol=1e-2)
