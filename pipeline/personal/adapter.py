"""The user adapter: what a user's boundary adds to every text cross-attention of a UNet.

It hangs on the ``attn2`` modules as forward hooks, so it goes with any attention backend and with
any LoRA, and detaching leaves the UNet bit-equal. A fresh adapter changes nothing. Its weights are
trained in float32, whatever the UNet computes in.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.personal.user_attention import FORMS, Conditions, UserBatch
from pipeline.seeds import torch_seeded


@dataclass(frozen=True)
class AdapterSettings:
    """The adapter's form and size; see ``pipeline.personal.user_attention``."""

    form: str = "gated"  # a name in FORMS
    tokens: int = 4  # per category; of the form "attention" in all, and the paper has one
    width: int = 64  # of a token; "attention" has the text's
    rank: int = 64  # of queries and keys; "attention" has the layer's
    value_rank: int = 16  # of what a token does with the text, beside what it adds


def text_attentions(unet: nn.Module) -> dict[str, nn.Module]:
    """A UNet's cross-attentions to the text, by name."""
    return {n: m for n, m in unet.named_modules() if n.rpartition(".")[2] == "attn2"}


class PersonalAdapter(nn.Module):
    """User attention for every text cross-attention of a UNet.

    Args:
        unet: what it is made for; nothing is attached yet.
        settings: its form and size.
        categories: names, in the order of ``UserBatch.bans``.
        user_width: of the users' vectors.
        seed: of the initial weights.

    Raises InputError for an unknown form, or a UNet without text cross-attention.
    """

    def __init__(
        self, unet: nn.Module, settings: AdapterSettings, categories: Sequence[str],
        user_width: int, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        attentions = text_attentions(unet)
        if not attentions:
            raise InputError("this UNet has no cross-attention to a text; PSA needs one")
        if settings.form not in FORMS:
            raise InputError(f"unknown adapter form {settings.form!r}; known: {', '.join(FORMS)}")
        self.settings, self.categories = settings, list(categories)
        tokens, layer = FORMS[settings.form]
        sizes = {k: v for k, v in asdict(settings).items() if k != "form"}
        with torch_seeded(seed):
            self.tokens = tokens(
                categories=len(categories), user_width=user_width,
                text_width=unet.config.cross_attention_dim, **sizes,
            )  # fmt: skip
            # a module's name must not hold dots
            self.layers = nn.ModuleDict({
                name.replace(".", "/"): layer(m, self.tokens.width, **sizes)
                for name, m in attentions.items()
            })  # fmt: skip
        self.scale = 1.0  # strength of the user term
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._given: dict[int, Conditions] = {}  # what users became, by the number of rows
        self._on = True
        self._shares: list[Tensor] | None = None

    def attach(self, unet: nn.Module) -> None:
        """Hang the adapter on a UNet; InputError when its layers are others, or not all of them.

        From here on it must be told its users by ``show``, or be used ``off``.
        """
        modules, names = text_attentions(unet), {k.replace("/", "."): k for k in self.layers}
        if other := sorted(names.keys() ^ modules.keys()):
            raise InputError(f"the adapter is of another base model: {other[0]} is not in both")
        self.detach()
        for name, key in names.items():
            self._hooks.append(
                modules[name].register_forward_hook(self._hook(key), with_kwargs=True)
            )

    def detach(self) -> None:
        """Take the adapter off its UNet, which is then as it was before."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within, the UNet is the base model, also if the body raises."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def show(self, users: UserBatch, guided: bool = False) -> None:
        """From here on row i of the UNet's batches is for user i.

        ``guided`` batches may be twice as long: first the same rows without text, for which
        classifier-free guidance has nobody. Not a context: gradient checkpointing runs forwards
        again when gradients are computed.
        """
        # made here and not when they are needed: that may be inside a checkpointed block
        self._given = {len(users): self.tokens(users)}
        if guided:
            self._given[2 * len(users)] = self.tokens(users.after_nobody())

    @contextmanager
    def watching(self) -> Iterator[list[Tensor]]:
        """Within, a list that each layer's forward adds its attention to.

        Log shares (rows, pixels, tokens + 1), the sink's last; forms without a sink add nothing.
        """
        self._shares = shares = []
        try:
            yield shares
        finally:
            self._shares = None

    def _hook(self, key: str):
        def add(attention: nn.Module, args: tuple, kwargs: dict, text: Tensor) -> Tensor:
            if not self._on:
                return text
            hidden = args[0] if args else kwargs["hidden_states"]
            term, shares = self.layers[key](attention, hidden, text, self._current(len(text)))
            if self._shares is not None and shares is not None:
                self._shares.append(shares)
            return text + self.scale * term.to(text.dtype)

        return add

    def _current(self, rows: int) -> Conditions:
        """The tokens and gates of a batch's users."""
        if not self._given:
            raise InputError("the UNet carries a user adapter and was told no user: use "
                             "adapter.show(users), or adapter.off()")  # fmt: skip
        if rows not in self._given:
            raise InputError(f"the UNet's batch has {rows} rows, there are {min(self._given)} "
                             "users: one is needed for each")  # fmt: skip
        return self._given[rows]
