import copy

import pytest
import torch

from pipeline.errors import InputError
from pipeline.lora import adapter_off, attach_lora
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.user_attention import UserBatch
from tests.personal.examples import (
    ATTENTION,
    CATEGORIES,
    FORMS,
    GATED,
    ONE_TOKEN,
    WIDTH,
    make_adapter,
    predict,
    sdxl_unet,
    some_users,
    take,
    unet_inputs,
)

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(params=["sd", "sdxl"])
def unet(request, tiny_unet):
    """A tiny UNet of either shape; SDXL's has several blocks a layer and further conditions."""
    return tiny_unet if request.param == "sd" else sdxl_unet()


@pytest.fixture(params=FORMS, ids=lambda settings: settings.form)
def settings(request):
    return request.param


def hooks_of(unet):
    return [h for m in unet.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]


def lora_on(unet):
    """A LoRA with random weights, the same for equal models."""
    parameters = attach_lora(unet, 2, TARGETS, seed=0)
    rng = torch.Generator().manual_seed(2)
    for parameter in parameters.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng)
    return unet


def test_a_fresh_adapter_changes_nothing(unet, settings):
    inputs = unet_inputs(unet)
    base = predict(unet, inputs)
    adapter = make_adapter(unet, settings, trained=False)
    for users in (some_users({"hate"}, CATEGORIES), some_users(set(), {"hate"}, seed=5)):
        adapter.show(users)
        assert torch.equal(predict(unet, inputs), base)
    assert len(hooks_of(unet)) == len(adapter.layers) > 1
    adapter.show(some_users({"hate"}), guided=True)
    assert torch.equal(predict(unet, inputs), base)


def test_off_is_the_base_model_exactly_also_after_an_error(unet, settings):
    inputs = unet_inputs(unet)
    base = predict(unet, inputs)
    adapter = make_adapter(unet, settings)
    adapter.show(some_users({"hate"}, CATEGORIES))
    changed = predict(unet, inputs)
    assert (changed - base).abs().max() > 1e-2
    with adapter.off():
        assert torch.equal(predict(unet, inputs), base)
        with adapter.off():
            pass
        assert torch.equal(predict(unet, inputs), base)
    assert torch.equal(predict(unet, inputs), changed)
    with pytest.raises(RuntimeError), adapter.off():
        raise RuntimeError
    assert torch.equal(predict(unet, inputs), changed)


def test_off_asks_for_no_user(tiny_unet, settings):
    adapter = make_adapter(tiny_unet, settings)
    with adapter.off():
        predict(tiny_unet, unet_inputs(tiny_unet))


def test_detached_nothing_is_left_of_it(unet, settings):
    inputs, names = unet_inputs(unet), set(unet.state_dict())
    base = predict(unet, inputs)
    adapter = make_adapter(unet, settings)
    adapter.show(some_users({"hate"}, CATEGORIES))
    assert not torch.equal(predict(unet, inputs), base)
    adapter.detach()
    assert hooks_of(unet) == []
    assert set(unet.state_dict()) == names
    assert torch.equal(predict(unet, inputs), base)
    adapter.detach()  # twice is no error


def test_attached_twice_it_counts_once_and_elsewhere_it_leaves_the_first(unet, settings):
    other, inputs = copy.deepcopy(unet), unet_inputs(unet)
    base = predict(unet, inputs)
    adapter = make_adapter(unet, settings)
    adapter.show(some_users({"hate"}, CATEGORIES))
    changed = predict(unet, inputs)
    adapter.attach(unet)
    assert torch.equal(predict(unet, inputs), changed)
    adapter.attach(other)
    assert torch.equal(predict(other, inputs), changed)
    assert torch.equal(predict(unet, inputs), base)


def test_another_models_adapter_is_refused_and_the_unet_stays_as_it_was(tiny_unet, settings):
    adapter = make_adapter(sdxl_unet(), settings)
    with pytest.raises(InputError, match="another base model: .* is not in both"):
        adapter.attach(tiny_unet)
    assert hooks_of(tiny_unet) == []


def test_an_adapter_that_covers_only_part_of_a_unet_is_refused(tiny_unet):
    adapter = PersonalAdapter(tiny_unet, GATED, CATEGORIES, WIDTH)
    first = next(iter(adapter.layers))
    del adapter.layers[first]  # as if made for a UNet without that layer
    with pytest.raises(InputError, match="another base model"):
        adapter.attach(tiny_unet)


def test_unknown_forms_and_unets_without_a_text_are_refused(tiny_unet):
    with pytest.raises(InputError, match="unknown adapter form 'ip'; known: gated, attention"):
        PersonalAdapter(tiny_unet, AdapterSettings("ip"), CATEGORIES, WIDTH)
    with pytest.raises(InputError, match="no cross-attention to a text"):
        PersonalAdapter(torch.nn.Linear(2, 2), GATED, CATEGORIES, WIDTH)


def test_weights_follow_the_seed_and_leave_the_global_rng(tiny_unet, settings):
    state = torch.get_rng_state()
    first, again, other = (
        PersonalAdapter(tiny_unet, settings, CATEGORIES, WIDTH, seed).state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not all(torch.equal(first[n], other[n]) for n in first)
    assert torch.equal(state, torch.get_rng_state())
    assert {v.dtype for v in first.values()} == {torch.float32}


@pytest.mark.parametrize("first", ["lora", "adapter"])
def test_it_goes_with_a_lora_attached_before_or_after(unet, settings, first):
    inputs, users = unet_inputs(unet), some_users({"hate"}, CATEGORIES)
    with_lora, with_adapter = lora_on(copy.deepcopy(unet)), copy.deepcopy(unet)
    alone = make_adapter(with_adapter, settings)
    alone.show(users)
    only_lora, only_adapter = predict(with_lora, inputs), predict(with_adapter, inputs)

    if first == "lora":
        adapter = make_adapter(lora_on(unet), settings)
    else:
        adapter = make_adapter(unet, settings)
        lora_on(unet)
    assert adapter.state_dict().keys() == alone.state_dict().keys()
    adapter.show(users)
    both = predict(unet, inputs)
    with adapter.off():
        assert torch.equal(predict(unet, inputs), only_lora)
    with adapter_off(unet):
        assert torch.equal(predict(unet, inputs), only_adapter)
    assert (both - only_lora).abs().max() > 1e-2 < (both - only_adapter).abs().max()
    adapter.detach()
    assert torch.equal(predict(unet, inputs), only_lora)


def test_a_lora_and_the_adapter_compose_in_either_order(unet, settings):
    inputs, users = unet_inputs(unet), some_users({"hate"}, CATEGORIES)
    first, second = unet, copy.deepcopy(unet)
    before = make_adapter(first, settings)
    lora_on(first)
    after = make_adapter(lora_on(second), settings)
    for adapter in (before, after):
        adapter.show(users)
    assert torch.equal(predict(first, inputs), predict(second, inputs))


def learn(unet, adapter, users, steps, inputs=None):
    """A few updates towards a made-up target; the gradients of one more step, by name."""
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.01, weight_decay=0)
    inputs = inputs or unet_inputs(unet, rows=len(users))
    for step in range(steps + 1):
        adapter.show(users)
        optimizer.zero_grad()
        (unet(**inputs).sample - 1).square().mean().backward()
        if step < steps:
            optimizer.step()
    return {n: p.grad for n, p in adapter.named_parameters()}


@pytest.mark.parametrize("settings", FORMS, ids=lambda settings: settings.form)
def test_after_the_first_update_the_gradient_reaches_every_weight(unet, settings):
    adapter = make_adapter(unet, settings, trained=False)
    users = some_users({"hate"}, {"violence"}, CATEGORIES)
    if settings is ATTENTION:
        users = users.without(torch.tensor([False, True, False]))
    gradients = learn(unet, adapter, users, steps=1)
    idle = [n for n, g in gradients.items() if g is None or not g.any()]
    assert idle == []
    assert sum(n.endswith("to_k.weight") for n in gradients) == len(adapter.layers)


def test_with_one_token_the_published_form_gives_to_k_no_gradient(unet):
    """METHOD 2.5 no. 1: the softmax over one key is 1, whatever the key is."""
    adapter = make_adapter(unet, ONE_TOKEN, trained=False)
    gradients = learn(unet, adapter, some_users({"hate"}, CATEGORIES), steps=3)
    keys = [g for n, g in gradients.items() if n.endswith("to_k.weight")]
    values = [g for n, g in gradients.items() if n.endswith("to_v.weight")]
    assert all(torch.equal(g, torch.zeros_like(g)) for g in keys)
    assert all(g.any() for g in values)


def test_tokens_beyond_the_first_matter(unet, settings):
    """METHOD 2.5 no. 1: the published code ignored them."""
    adapter, inputs = make_adapter(unet, settings), unet_inputs(unet)
    users = some_users({"hate"}, {"hate", "violence"})
    adapter.show(users)
    before = predict(unet, inputs)
    if settings is ATTENTION:
        width = unet.config.cross_attention_dim
        adapter.tokens.project.weight.data[3 * width :] += torch.randn(width, WIDTH)
    else:
        adapter.tokens.embeddings.data[1] += 1.0  # the second of the first category
    adapter.show(users)
    assert (predict(unet, inputs) - before).abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.float32, 0.99, 1),
                                                    (torch.bfloat16, 0, 0.2)])  # fmt: skip
def test_small_steps_under_bf16_only_change_weights_that_are_kept_in_fp32(
    tiny_unet, settings, dtype, low, high
):
    """METHOD 2.5 no. 2: stored in bf16, most of the published projection never changed."""
    users, inputs = some_users({"hate"}, CATEGORIES), unet_inputs(tiny_unet)
    adapter = make_adapter(tiny_unet, settings).to(dtype)
    start = [p.detach().clone() for p in adapter.parameters()]
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-5, weight_decay=0)
    for _ in range(3):
        adapter.show(users.to("cpu", dtype))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            predicted = tiny_unet(**inputs).sample
        (predicted.float() - 1).square().mean().backward()
        optimizer.step()
    assert {p.dtype for p in adapter.parameters()} == {dtype}
    pairs = zip(adapter.parameters(), start, strict=True)
    moved = [(p != before)[p.grad != 0] for p, before in pairs if p.grad is not None]
    assert low <= torch.cat(moved).float().mean() <= high


def test_under_bf16_a_fresh_adapter_changes_nothing_and_a_trained_one_does(unet, settings):
    inputs = unet_inputs(unet)
    with torch.autocast("cpu", torch.bfloat16):
        base = predict(unet, inputs)
        for trained in (False, True):
            adapter = make_adapter(unet, settings, trained=trained)
            adapter.show(some_users({"hate"}, CATEGORIES))
            assert torch.equal(predict(unet, inputs), base) != trained
            with adapter.off():
                assert torch.equal(predict(unet, inputs), base)
            adapter.detach()


def test_under_bf16_layers_give_bf16_as_without_it(unet, settings):
    kinds, adapter = [], make_adapter(unet, settings)
    for module in (m for n, m in unet.named_modules() if n.endswith("attn2")):
        module.register_forward_hook(lambda _, __, text: kinds.append(text.dtype))
    adapter.show(some_users({"hate"}, CATEGORIES))
    with torch.autocast("cpu", torch.bfloat16):
        predict(unet, unet_inputs(unet))
    assert kinds == [torch.bfloat16] * len(adapter.layers)


def test_it_draws_in_half_precision_with_a_model_that_does(unet, settings):
    adapter = make_adapter(unet, settings).to(torch.bfloat16)
    unet.to(torch.bfloat16)
    inputs = unet_inputs(unet)
    for name in ("sample", "encoder_hidden_states"):
        inputs[name] = inputs[name].to(torch.bfloat16)
    if "added_cond_kwargs" in inputs:
        inputs["added_cond_kwargs"]["text_embeds"] = (
            inputs["added_cond_kwargs"]["text_embeds"].to(torch.bfloat16)
        )  # fmt: skip
    adapter.show(some_users({"hate"}).to("cpu", torch.bfloat16), guided=True)
    found = predict(unet, inputs)
    assert found.dtype == torch.bfloat16 and found.isfinite().all()
    with adapter.off():
        assert not torch.equal(found, predict(unet, inputs))


def test_a_guided_batch_is_for_nobody_first(unet, settings):
    adapter, inputs = make_adapter(unet, settings), unet_inputs(unet, rows=4)
    users = some_users({"hate"}, CATEGORIES)
    adapter.show(users, guided=True)
    guided = predict(unet, inputs)
    adapter.show(users.repeat(2).without(torch.tensor([True, True, False, False])))
    assert torch.equal(predict(unet, inputs), guided)
    adapter.show(users.repeat(2).without(torch.tensor([False, False, True, True])))
    assert not torch.allclose(predict(unet, inputs)[2:], guided[2:], atol=1e-4)
    adapter.show(users, guided=True)  # as when a pipeline does without guidance
    alone = predict(unet, take(inputs, slice(2, 4)))
    assert torch.allclose(alone, guided[2:], atol=1e-5)


def test_of_a_gated_adapter_nobody_is_the_base_model(unet):
    adapter, inputs = make_adapter(unet, GATED), unet_inputs(unet, rows=4)
    adapter.show(some_users({"hate"}, CATEGORIES), guided=True)
    guided = predict(unet, inputs)
    with adapter.off():
        base = predict(unet, inputs)
    assert torch.equal(guided[:2], base[:2])
    assert (guided[2:] - base[2:]).abs().amax((1, 2, 3)).min() > 1e-3


def test_of_the_papers_form_nobody_is_learned(unet):
    adapter = make_adapter(unet, ATTENTION)
    users = some_users({"hate"}, CATEGORIES)
    assert not learn(unet, adapter, users, steps=0)["tokens.nobody"].any()
    dropped = users.without(torch.tensor([True, False]))
    assert learn(unet, adapter, dropped, steps=0)["tokens.nobody"].any()


@pytest.mark.parametrize(("guided", "rows"), [(False, 3), (False, 4), (False, 1), (True, 3),
                                              (True, 6)])  # fmt: skip
def test_a_batch_needs_a_user_for_each_row(tiny_unet, settings, guided, rows):
    adapter = make_adapter(tiny_unet, settings)
    adapter.show(some_users({"hate"}, CATEGORIES), guided)
    with pytest.raises(InputError, match=f"batch has {rows} rows, there are 2 users"):
        predict(tiny_unet, unet_inputs(tiny_unet, rows=rows))


def test_users_of_an_earlier_batch_are_forgotten(tiny_unet, settings):
    adapter = make_adapter(tiny_unet, settings)
    adapter.show(some_users({"hate"}, CATEGORIES, set()), guided=True)
    predict(tiny_unet, unet_inputs(tiny_unet, rows=6))
    adapter.show(some_users({"hate"}, CATEGORIES))
    for rows in (3, 6, 4):
        with pytest.raises(InputError, match=f"batch has {rows} rows, there are 2 users"):
            predict(tiny_unet, unet_inputs(tiny_unet, rows=rows))


def test_users_must_be_told(tiny_unet, settings):
    make_adapter(tiny_unet, settings)
    with pytest.raises(InputError, match=r"was told no user: use adapter.show\(users\), or"):
        predict(tiny_unet, unet_inputs(tiny_unet))


def test_of_a_gated_adapter_nothing_about_a_user_but_the_bans_matters(unet):
    adapter, inputs = make_adapter(unet, GATED), unet_inputs(unet)
    drawn = []
    for seed in (1, 2):
        adapter.show(some_users({"hate"}, {"hate", "violence"}, seed=seed))
        drawn.append(predict(unet, inputs))
    assert torch.equal(*drawn)
    adapter.show(some_users({"violence"}, {"hate", "violence"}))
    other = predict(unet, inputs)
    assert (other[0] - drawn[0][0]).abs().max() > 1e-4
    assert torch.allclose(other[1], drawn[0][1], atol=1e-5)


def test_of_the_papers_form_the_vector_matters(unet):
    adapter, inputs = make_adapter(unet, ATTENTION), unet_inputs(unet)
    drawn = []
    for seed in (1, 2):
        adapter.show(some_users({"hate"}, {"hate"}, seed=seed))
        drawn.append(predict(unet, inputs))
    assert not torch.allclose(*drawn, atol=1e-4)


def test_of_a_gated_adapter_who_bans_nothing_gets_the_base_model(unet):
    adapter, inputs = make_adapter(unet, GATED), unet_inputs(unet)
    adapter.show(some_users(set(), {"sexual"}))
    drawn = predict(unet, inputs)
    with adapter.off():
        base = predict(unet, inputs)
    assert torch.equal(drawn[0], base[0])
    assert not torch.equal(drawn[1], base[1])


def test_a_row_does_not_depend_on_the_others(unet, settings):
    adapter, inputs = make_adapter(unet, settings), unet_inputs(unet, rows=3)
    users = some_users({"hate"}, set(), {"violence", "sexual"})
    users = users.without(torch.tensor([False, False, True])) if settings is ATTENTION else users
    adapter.show(users)
    together = predict(unet, inputs)
    for k in range(3):
        adapter.show(users.take(torch.tensor([k])))
        alone = predict(unet, take(inputs, slice(k, k + 1)))
        assert torch.allclose(alone[0], together[k], atol=1e-5)
    order = torch.tensor([2, 0, 1])
    adapter.show(users.take(order))
    assert torch.allclose(predict(unet, take(inputs, order)), together[order], atol=1e-5)


def test_strength_scales_what_is_added(unet, settings):
    adapter, inputs = make_adapter(unet, settings), unet_inputs(unet)
    adapter.show(some_users({"hate"}, CATEGORIES))
    drawn = {}
    for scale in (0.0, 0.01, 1.0):
        adapter.scale = scale
        drawn[scale] = predict(unet, inputs)
    with adapter.off():
        base = predict(unet, inputs)
    assert torch.equal(drawn[0.0], base)
    assert 0 < (drawn[0.01] - base).norm() < 0.1 * (drawn[1.0] - base).norm()


def test_a_gated_adapters_attention_can_be_watched(unet):
    adapter, inputs = make_adapter(unet, GATED), unet_inputs(unet)
    adapter.show(some_users({"hate"}, CATEGORIES))
    plain = predict(unet, inputs)
    with adapter.watching() as shares:
        assert torch.equal(predict(unet, inputs), plain)
    assert len(shares) == len(adapter.layers)
    tokens = len(CATEGORIES) * GATED.tokens + 1
    assert all(s.shape[0] == 2 and s.shape[2] == tokens for s in shares)
    assert all(torch.allclose(s.exp().sum(-1), torch.ones(s.shape[:2])) for s in shares)
    predict(unet, inputs)
    assert len(shares) == len(adapter.layers)  # nothing is added afterwards


def test_the_papers_form_has_no_attention_to_watch(tiny_unet):
    adapter = make_adapter(tiny_unet, ATTENTION)
    adapter.show(some_users({"hate"}, CATEGORIES))
    with adapter.watching() as shares:
        predict(tiny_unet, unet_inputs(tiny_unet))
    assert shares == []


def test_gradients_are_the_same_with_gradient_checkpointing(unet, settings):
    unet.train()
    users, found = some_users({"hate"}, CATEGORIES), []
    for saving in (False, True):
        model = copy.deepcopy(unet)
        if saving:
            model.enable_gradient_checkpointing()
        found.append(learn(model, make_adapter(model, settings), users, steps=0))
    plain, saved = found
    kept = [n for n in plain if plain[n] is not None]
    assert all(torch.allclose(plain[n], saved[n], atol=1e-6) for n in kept)


def test_new_weights_count_from_the_next_show_on(tiny_unet, settings):
    adapter, inputs = make_adapter(tiny_unet, settings), unet_inputs(tiny_unet)
    users: UserBatch = some_users({"hate"}, CATEGORIES)
    adapter.show(users)
    before = predict(tiny_unet, inputs)
    for parameter in adapter.tokens.parameters():
        parameter.data += torch.randn(parameter.shape)
    adapter.show(users)
    assert not torch.allclose(predict(tiny_unet, inputs), before, atol=1e-4)
