"""The two forms of user cross-attention: how users become tokens, and what one layer adds.

- ``attention``, the paper's (METHOD §2.3): tokens made of the user's vector, attended to by the
  image as it attends to the text. With one token, as published, the softmax is 1: ``to_k`` gets no
  gradient, and what is added is one vector for all pixels, whatever the prompt (METHOD §2.5).
- ``gated`` [ours]: learned tokens per category. What a pixel took from the text is the query, so
  that the prompt decides which category's tokens answer; an answer counts only where the user bans
  the category. Benign text goes to a sink that answers nothing. So an allowed category is drawn as
  the base model draws it, equal bans give equal pictures, and nothing about a user but the bans
  matters.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention


@dataclass(frozen=True)
class UserBatch:
    """The users of a UNet's batch, row by row.

    ``vectors`` (rows, user width) are standardised, ``bans`` (rows, categories) is 1 where a
    category is banned; ``known`` (rows,) is False for the null user, whose vector and bans do not
    matter.
    """

    vectors: Tensor
    bans: Tensor
    known: Tensor

    def __len__(self) -> int:
        return len(self.known)

    @classmethod
    def of(cls, vectors: Tensor, bans: Tensor) -> "UserBatch":
        """Users who are known."""
        return cls(vectors, bans, torch.ones(len(bans), dtype=torch.bool, device=bans.device))

    def repeat(self, times: int) -> "UserBatch":
        """The whole batch ``times`` times over."""
        return UserBatch(*(torch.cat([column] * times) for column in self._columns))

    def take(self, rows: Tensor) -> "UserBatch":
        """Some rows, by position."""
        return UserBatch(*(column[rows] for column in self._columns))

    def without(self, rows: Tensor) -> "UserBatch":
        """With the null user in some rows, (rows,) bool."""
        return UserBatch(self.vectors, self.bans, self.known & ~rows.to(self.known.device))

    def after_nobody(self) -> "UserBatch":
        """As many null users, then these: what classifier-free guidance denoises together."""
        nobody = self.without(torch.ones_like(self.known))
        joined = zip(nobody._columns, self._columns, strict=True)
        return UserBatch(*(torch.cat(pair) for pair in joined))

    def to(self, device: torch.device, dtype: torch.dtype) -> "UserBatch":
        """On a device, numbers in a precision."""
        return UserBatch(self.vectors.to(device, dtype), self.bans.to(device, dtype),
                         self.known.to(device))  # fmt: skip

    @property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.vectors, self.bans, self.known


class Conditions(NamedTuple):
    """What the layers are given of a batch of users."""

    tokens: Tensor  # (rows, tokens, width), or (tokens, width) where all rows have the same
    gates: Tensor | None = None  # (rows, tokens), how much each token's answer counts


class VectorTokens(nn.Module):
    """LayerNorm(Linear(user's vector)) as tokens of the text's width (METHOD §2.3).

    The null user is a learned vector, trained by profile dropout: it is what guidance compares
    with, and the published one was never trained.
    """

    def __init__(self, *, tokens: int, user_width: int, text_width: int, **_: int) -> None:
        super().__init__()
        self.width = text_width
        self.project = nn.Linear(user_width, tokens * text_width)
        self.norm = nn.LayerNorm(text_width)
        self.nobody = nn.Parameter(torch.zeros(user_width))

    def forward(self, users: UserBatch) -> Conditions:
        """The tokens of every row."""
        vectors = torch.where(users.known[:, None], users.vectors, self.nobody)
        return Conditions(self.norm(self.project(vectors).unflatten(1, (-1, self.width))))


class CategoryTokens(nn.Module):
    """Learned tokens, some for each category, with the user's bans as gates.

    The null user bans nothing, so it is the base model itself: there is nothing about it to train.
    """

    def __init__(self, *, tokens: int, categories: int, width: int, **_: int) -> None:
        super().__init__()
        self.width, self._per_category = width, tokens
        self.embeddings = nn.Parameter(torch.randn(categories * tokens, width))

    def forward(self, users: UserBatch) -> Conditions:
        """The tokens, and each row's gates."""
        bans = users.bans * users.known[:, None]
        return Conditions(self.embeddings, bans.repeat_interleave(self._per_category, 1))


class VectorLayer(nn.Module):
    """Attn(Q, W_k tokens, W_v tokens) with the text attention's own Q, before its output layer."""

    def __init__(self, attention: nn.Module, token_width: int, **_: int) -> None:
        super().__init__()
        inner = attention.to_q.out_features
        self.to_k = nn.Linear(token_width, inner, bias=False)
        self.to_v = nn.Linear(token_width, inner, bias=False)
        nn.init.zeros_(self.to_v.weight)  # the paper zeroes to_k too, which then learns later

    def forward(
        self, attention: nn.Module, hidden: Tensor, text: Tensor, given: Conditions
    ) -> tuple[Tensor, None]:  # fmt: skip
        """What is added to the text attention's output, (rows, pixels, width), and no shares."""

        def heads(value: Tensor) -> Tensor:
            return value.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

        found = scaled_dot_product_attention(
            heads(attention.to_q(hidden)), heads(self.to_k(given.tokens)),
            heads(self.to_v(given.tokens)),
        )  # fmt: skip
        # the output layer is linear: out(text + user) = out(text) + out(user) - its bias
        output, joined = attention.to_out[0], found.transpose(1, 2).flatten(2)
        return output(joined) - output(torch.zeros_like(joined[:1, :1])), None


class GatedLayer(nn.Module):
    """Attention of what the text attention gave to the category tokens and a sink.

    A token answers with a vector and with a low-rank map of the text's contribution, each counted
    by its share of the attention and its gate.
    """

    def __init__(
        self, attention: nn.Module, token_width: int, *, rank: int, value_rank: int, **_: int
    ) -> None:  # fmt: skip
        super().__init__()
        width = attention.to_out[0].out_features
        self.to_q = nn.Linear(width, rank, bias=False)
        self.to_k = nn.Linear(token_width, rank, bias=False)
        self.sink = nn.Parameter(torch.zeros(1))  # logit
        self.to_v = nn.Linear(token_width, width, bias=False)
        self.down = nn.Linear(width, value_rank, bias=False)
        self.middle = nn.Linear(token_width, value_rank, bias=False)
        self.up = nn.Linear(value_rank, width, bias=False)
        nn.init.zeros_(self.to_v.weight)
        nn.init.zeros_(self.up.weight)

    def forward(
        self, attention: nn.Module, hidden: Tensor, text: Tensor, given: Conditions
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """What is added to the text attention's output, (rows, pixels, width), and log shares.

        The shares are (rows, pixels, tokens + 1), the sink's last.
        """
        query, keys = self.to_q(layer_norm(text, text.shape[-1:])), self.to_k(given.tokens)
        logits = query @ keys.T / keys.shape[1] ** 0.5
        shares = torch.cat([logits, self.sink.expand(*logits.shape[:-1], 1)], -1).log_softmax(-1)
        counted = shares[..., :-1].exp() * given.gates[:, None]
        mapped = self.up(self.down(text) * (counted @ self.middle(given.tokens)))
        return counted @ self.to_v(given.tokens) + mapped, shares


# name -> module that makes tokens of users, module of one layer
FORMS = {"gated": (CategoryTokens, GatedLayer), "attention": (VectorTokens, VectorLayer)}
