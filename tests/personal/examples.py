"""Tiny users, spaces, adapters and models for the tests of the personal side."""

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.encoders import Standard, load_encoder
from pipeline.personal.profiles import UserProfile
from pipeline.personal.space import Boundary, EncoderSettings, UserSpace
from pipeline.personal.user_attention import UserBatch
from pipeline.records import User

CATEGORIES = ["hate", "violence", "sexual"]
FLOOR = frozenset({"sexual"})
WIDTH = 5  # of users' vectors where no encoder is needed
GATED = AdapterSettings("gated", tokens=2, width=6, rank=5, value_rank=3)
ATTENTION = AdapterSettings("attention", tokens=4)
ONE_TOKEN = AdapterSettings("attention", tokens=1)
FORMS = [GATED, ATTENTION]


def randomise(adapter, seed=0, size=0.5):
    """The adapter with random weights, as if it had been trained; also what starts at zero."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=rng)
    return adapter


def make_adapter(unet, settings=GATED, categories=CATEGORIES, width=WIDTH, trained=True):
    """An adapter, attached; with random weights unless it is to be fresh."""
    adapter = PersonalAdapter(unet, settings, categories, width)
    if trained:
        randomise(adapter)
    adapter.attach(unet)
    return adapter


def some_users(*bans, seed=1, categories=CATEGORIES, width=WIDTH):
    """A batch of users who ban these collections of categories, with random vectors."""
    rng = torch.Generator().manual_seed(seed)
    hot = torch.tensor([[float(c in banned) for c in categories] for banned in bans])
    return UserBatch.of(torch.randn(len(bans), width, generator=rng), hot)


def sdxl_unet():
    """A random SDXL-shaped UNet of a few thousand weights."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
        cross_attention_dim=8, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 + 6 * 8, use_linear_projection=True,
    ).requires_grad_(False)  # fmt: skip


def unet_inputs(unet, rows=2, seed=1):
    """Arguments of a tiny UNet, SDXL's too, other ones in every row."""
    rng = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=rng)

    given = {
        "sample": randn(rows, 4, 4, 4), "timestep": torch.arange(rows) * 90 + 10,
        "encoder_hidden_states": randn(rows, 6, unet.config.cross_attention_dim),
    }  # fmt: skip
    if unet.config.addition_embed_type == "text_time":
        given["added_cond_kwargs"] = {
            "text_embeds": randn(rows, 6), "time_ids": torch.full((rows, 6), 32.0)
        }  # fmt: skip
    return given


def take(inputs, rows):
    """Some rows of a UNet's arguments."""
    return {
        k: take(v, rows) if isinstance(v, dict) else v[rows] for k, v in inputs.items()
    }  # fmt: skip


@torch.no_grad()
def predict(unet, inputs):
    """The UNet's output, without gradients."""
    return unet(**inputs).sample


def make_space(categories=CATEGORIES, floor=FLOOR, encoder="structured"):
    """A space whose standard is made up; its levels are the floor alone, and everything."""
    width = load_encoder(
        encoder, categories=categories, model=None, revision=None, batch=1
    ).features([UserProfile()], [frozenset()]).shape[1]  # fmt: skip
    rng = np.random.default_rng(0)
    standard = Standard(rng.normal(size=width).astype(np.float32),
                        rng.uniform(0.5, 2, size=width).astype(np.float32))  # fmt: skip
    levels = {
        f"L{k}": Boundary(frozenset(banned), rng.normal(size=width).astype(np.float32))
        for k, banned in enumerate((floor, categories), 1)
    }
    return UserSpace(tuple(categories), frozenset(floor), EncoderSettings(encoder), standard,
                     levels)  # fmt: skip


def make_user(user_id, banned=(), split="train", age=30, vector=None, **told):
    """A user's row; of a vector that is not given nothing is asked."""
    values = np.arange(WIDTH) if vector is None else vector
    told = {"gender": "", "religion": "none", "physical": "", "mental": ""} | told
    return User(
        user_id=user_id, split=split, age=age, banned="+".join(sorted(banned)), level="L1",
        stands_for="", vector=np.asarray(values, np.float32).tobytes(), **told,
    )  # fmt: skip


def fault_of(call, *args, **kwargs):
    """The message of the InputError that a call ends with."""
    try:
        call(*args, **kwargs)
    except InputError as error:
        return str(error)
    raise AssertionError("no InputError")
