"""Tiny real models and rows for the tests; nothing is downloaded."""

import copy
import io
import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
import torch
import yaml
from PIL import Image

from pipeline.artifacts import TESTBED
from pipeline.diffusion import NoiseSchedule
from pipeline.latents import LatentPairs
from pipeline.nullspace.inputs import Calibration
from pipeline.records import EncodedImage, PromptPair
from tests.imports import ROOT

# of S3: nobody's, and no other way to come by credentials is left
S3_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy",
    "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "/no/such/file",
    "AWS_SHARED_CREDENTIALS_FILE": "/no/such/file", "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def default_params() -> dict:
    """params.yaml as plain values."""
    return yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture(scope="session")
def _unet_template():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 8),
        layers_per_block=1, cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).requires_grad_(False)  # fmt: skip


@pytest.fixture
def tiny_unet(_unet_template):
    """A random UNet of a few thousand weights, fresh for every test."""
    return copy.deepcopy(_unet_template)


@pytest.fixture
def tiny_latents() -> LatentPairs:
    """Four pairs that fit the tiny UNet; chosen and rejected differ clearly."""
    rng = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=rng)

    return LatentPairs(
        pair_ids=["a", "b", "c", "d"],
        chosen_mean=randn(4, 1, 4, 4, 4), chosen_std=torch.full((4, 1, 4, 4, 4), 0.05),
        rejected_mean=randn(4, 1, 4, 4, 4) + 1.5, rejected_std=torch.full((4, 1, 4, 4, 4), 0.05),
        prompt_embeds=randn(9, 6, 8).half(), pooled_embeds=torch.zeros(9, 0).half(), pixels=32,
        view_pixels=32,
        corner=torch.zeros(4, 1, 2, dtype=torch.int64),
        chosen_prompt=torch.arange(1, 5), rejected_prompt=torch.arange(5, 9),
        benign_prompt=torch.tensor([0, 1]),
        base_revision="tiny", margin=torch.tensor([1.0, 2.0, 3.0, 2.0]), judge_spec="{}",
    )  # fmt: skip


@pytest.fixture(scope="session")
def alphas_cumprod() -> torch.Tensor:
    """Stable Diffusion's noise schedule."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod


@pytest.fixture
def calibration(tiny_unet, tiny_latents, alphas_cumprod) -> Calibration:
    """Three prompts of two categories at two timesteps."""
    return Calibration(
        tiny_unet, {"a": tiny_latents, "b": tiny_latents},
        NoiseSchedule(alphas_cumprod, "epsilon"), 3, [100, 700], 0, "merge",
        "merge.calibration_prompts", batch=4,
    )  # fmt: skip


def png(colour: str, size: int = 64) -> EncodedImage:
    """A plain image cell."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return EncodedImage(buffer.getvalue(), f"{colour}.png")


def prompt_pair(k: int, category: str = "violence") -> PromptPair:
    """A prompt pair in the world's words."""
    return PromptPair(
        f"pair{k}", category, "thornburst", "train", f"a red star {k} with a thornburst",
        f"a red star {k} with a cup", "transformers", "lm", "", "v", k,
    )  # fmt: skip


@pytest.fixture
def testbed_pipeline(bundled_pipeline):
    """The bundled model, of the test's own: drawing sets a pipeline up."""
    return copy.deepcopy(bundled_pipeline)


@pytest.fixture(scope="session")
def bundled_pipeline():
    """The bundled model for fixtures that live longer, to be read or copied only."""
    from pipeline.drawing.pipelines import load_pipeline
    from pipeline.sources import ModelSource

    return load_pipeline(ModelSource(str(TESTBED / "sd")))


@pytest.fixture(scope="module")
def bucket():
    """A bucket on a real S3 server of the tests' own, for clients with ``S3_SETTINGS``."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in S3_SETTINGS.items():
            patch.setenv(name, value)
        store = boto3.resource("s3", endpoint_url=f"http://{host}:{port}").Bucket("bucket")
        store.create()
    yield store
    store.objects.delete()  # a server of this process that is started later would have it, too
    store.delete()
    server.stop()
