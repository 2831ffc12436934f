import pytest
import torch

from pipeline.personal.user_attention import (
    CategoryTokens,
    Conditions,
    GatedLayer,
    UserBatch,
    VectorLayer,
    VectorTokens,
)
from tests.personal.examples import randomise, some_users


@pytest.fixture
def attention(tiny_unet):
    """A text cross-attention: width 8, four heads of two."""
    return next(m for n, m in tiny_unet.named_modules() if n.endswith("attn2"))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def columns(users):
    return users.vectors.tolist(), users.bans.tolist(), users.known.tolist()


def test_guidance_denoises_nobody_first():
    users = some_users({"hate"}, {"violence"})
    both = users.after_nobody()
    assert both.known.tolist() == [False, False, True, True]
    assert columns(both.take(torch.tensor([2, 3]))) == columns(users)
    assert users.known.all()  # the original is as it was


def test_batches_are_repeated_cut_and_emptied_row_by_row():
    users = some_users({"hate"}, {"violence"}, set())
    assert columns(users.repeat(2).take(torch.tensor([3, 4, 5]))) == columns(users)
    assert len(users.repeat(2)) == 6
    emptied = users.without(torch.tensor([False, True, False]))
    assert emptied.known.tolist() == [True, False, True]
    emptied = emptied.without(torch.tensor([True, False, False]))
    assert emptied.known.tolist() == [False, False, True]
    moved = users.to("cpu", torch.bfloat16)
    assert (moved.vectors.dtype, moved.bans.dtype, moved.known.dtype) == (
        torch.bfloat16, torch.bfloat16, torch.bool
    )  # fmt: skip


def test_gates_are_the_bans_of_each_categorys_tokens_and_of_nobody_none():
    tokens = CategoryTokens(tokens=2, categories=3, width=4)
    users = some_users({"hate", "sexual"}, {"violence"}).without(torch.tensor([False, True]))
    found = tokens(users)
    assert found.gates.tolist() == [[1, 1, 0, 0, 1, 1], [0] * 6]
    assert found.tokens is tokens.embeddings  # the same for everybody, whatever their vectors


def test_every_user_gets_as_many_normalised_tokens_of_the_texts_width():
    tokens = randomise(VectorTokens(tokens=3, user_width=5, text_width=8))
    users = some_users({"hate"}, set())
    found = tokens(users).tokens
    assert found.shape == (2, 3, 8)
    by_hand = users.vectors[1] @ tokens.project.weight[8:16].T + tokens.project.bias[8:16]
    assert torch.allclose(found[1, 1], tokens.norm(by_hand), atol=1e-6)
    assert not torch.allclose(found[0, 0], found[0, 1])
    assert not torch.allclose(found[0], found[1])


def test_of_nobody_the_vector_does_not_matter_but_the_learned_one_does():
    tokens = randomise(VectorTokens(tokens=2, user_width=5, text_width=8))
    nobody = some_users({"hate"}).after_nobody()
    other = UserBatch(nobody.vectors + 1, nobody.bans, nobody.known)
    first, second = tokens(nobody).tokens, tokens(other).tokens
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    tokens.nobody.data += 1
    assert not torch.equal(tokens(nobody).tokens[0], first[0])
    assert torch.equal(tokens(nobody).tokens[1], first[1])


def gated(attention, categories=2):
    layer = GatedLayer(attention, 4, rank=5, value_rank=3)
    return randomise(layer), randn(categories * 2, 4, seed=5)


def test_a_gated_layer_by_hand(attention):
    layer, tokens = gated(attention)
    text, gates = randn(2, 3, 8, seed=3), torch.tensor([[1.0, 1, 0, 0], [0, 0, 0.5, 0.5]])
    term, shares = layer(attention, None, text, Conditions(tokens, gates))
    assert shares.shape == (2, 3, 5)
    for row in range(2):
        for pixel in range(3):
            seen = text[row, pixel]
            normal = (seen - seen.mean()) / (seen.var(unbiased=False) + 1e-5).sqrt()
            query = layer.to_q.weight @ normal
            logits = [query @ (layer.to_k.weight @ token) / 5**0.5 for token in tokens]
            share = torch.stack([*logits, layer.sink[0]]).softmax(0)
            assert torch.allclose(shares[row, pixel].exp(), share, atol=1e-5)
            answer = torch.zeros(8)
            for k, token in enumerate(tokens):
                counted = share[k] * gates[row, k]
                answer = answer + counted * (layer.to_v.weight @ token)
                mapped = (layer.down.weight @ seen) * (layer.middle.weight @ token)
                answer = answer + counted * (layer.up.weight @ mapped)
            assert torch.allclose(term[row, pixel], answer, atol=1e-4)


def test_a_token_of_an_allowed_category_answers_nothing(attention):
    """Whatever it would say: only what it takes from the others' shares shows."""
    layer, tokens = gated(attention)
    text = randn(1, 3, 8, seed=3)
    answers = []
    for gates in ([0.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]):
        given = Conditions(tokens, torch.tensor([gates]))
        answers.append(layer(attention, None, text, given)[0])
    nothing, first, second, both = answers
    assert torch.equal(nothing, torch.zeros_like(nothing))
    assert first.abs().min() > 0 and second.abs().min() > 0
    assert torch.allclose(both, first + second, atol=1e-5)


def test_what_goes_to_the_sink_is_left_alone(attention):
    layer, tokens = gated(attention)
    layer.sink.data.fill_(50.0)
    text, gates = randn(2, 3, 8, seed=3), torch.ones(2, 4)
    term, shares = layer(attention, None, text, Conditions(tokens, gates))
    assert term.abs().max() < 1e-15
    assert torch.allclose(shares[..., -1], torch.zeros(2, 3))


def test_the_papers_layer_by_hand(attention):
    layer, tokens = randomise(VectorLayer(attention, 8)), randn(2, 3, 8, seed=5)
    hidden = randn(2, 5, 8, seed=3)
    term, shares = layer(attention, hidden, None, Conditions(tokens))
    assert shares is None
    output = attention.to_out[0]
    assert output.bias.abs().max() > 0.01  # which must not be added a second time
    width = 8 // attention.heads
    for row in range(2):
        query = hidden[row] @ attention.to_q.weight.T
        keys, values = tokens[row] @ layer.to_k.weight.T, tokens[row] @ layer.to_v.weight.T
        found = []
        for h in range(attention.heads):
            part = slice(h * width, (h + 1) * width)
            share = (query[:, part] @ keys[:, part].T / width**0.5).softmax(-1)
            found.append(share @ values[:, part])
        by_hand = torch.cat(found, 1) @ output.weight.T
        assert torch.allclose(term[row], by_hand, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4])
def test_one_token_is_one_vector_for_all_pixels_whatever_the_prompt(attention, count):
    """METHOD 2.5 no. 1: the published form; with several tokens it is not so."""
    layer, tokens = randomise(VectorLayer(attention, 8)), randn(1, count, 8, seed=5)
    drawn = [layer(attention, randn(1, 5, 8, seed=s), None, Conditions(tokens))[0] for s in (3, 4)]
    same_everywhere = torch.allclose(drawn[0], drawn[0][:, :1].expand_as(drawn[0]), atol=1e-6)
    same_for_both = torch.allclose(*drawn, atol=1e-6)
    assert same_everywhere == same_for_both == (count == 1)
