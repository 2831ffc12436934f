from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.artifacts import TESTBED
from pipeline.diffusion import load_unet
from pipeline.drawing.pipelines import draw_images, load_pipeline
from pipeline.drawing.safe_latents import PRESETS, SafeLatents, safe_latents, safety_guidance
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.lora import attach_lora, extract_lora, save_lora
from pipeline.sources import ModelSource
from pipeline.testbed.checker import check_images, load_checker
from tests import test_sdxl

sdxl = test_sdxl.sdxl

MODEL = ModelSource(str(TESTBED / "sd"))
SAMPLER = Sampler("dpm++", 4, 3.0, 64)
MARKED, BENIGN = "a red star at night with a thornburst", "a red star at night with a balloon"
STRONG, MAX = (SafeLatents("thornburst", **PRESETS[name]) for name in ("strong", "max"))
OFF = [replace(MAX, scale=0.0, momentum=0.0), replace(MAX, warmup=1.0)]


def draw(pipe, prompts, settings=None, sampler=SAMPLER):
    """Images (prompts, height, width, channels), seed i for prompt i; plain ones without."""
    seeds = list(range(len(prompts)))
    images = draw_images(pipe, prompts, seeds, replace(sampler, safe_latents=settings))
    return np.stack([np.asarray(image) for image in images]).astype(int)


class FixedUnet(torch.nn.Module):
    """Predicts the same rows, (3, ...), at every call."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, sample, timestep, encoder_hidden_states, added_cond_kwargs, return_dict):
        assert sample.shape == self.rows.shape
        assert encoder_hidden_states[:, 0, 0].tolist() == [0, 0, 7]
        return (self.rows,)


def steer(settings, rows, steps):
    """What the pipeline gets at each step where the UNet predicts these rows, (3, ...)."""
    pipe = SimpleNamespace(
        unet=FixedUnet(rows), device="cpu", num_timesteps=steps, do_classifier_free_guidance=True,
        encode_prompt=lambda **_: (torch.full((1, 2, 5), 7.0), None),
    )  # fmt: skip
    with safe_latents(pipe, settings, steps):
        return [
            pipe.unet(torch.zeros_like(rows[:2]), torch.tensor(step), return_dict=False,
                      encoder_hidden_states=torch.zeros(2, 2, 5))[0]
            for step in range(steps)
        ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_worked_numbers(dtype):
    uncond = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.5])
    text = torch.tensor([0.0, 1.0, 1.0, 0.0625, 0.125])
    safety = torch.tensor([1.0, 1.25, 0.5, 0.0, 0.0])
    rows = torch.stack([uncond, text, safety]).to(dtype)
    # in full; half of what is asked for; beyond the threshold; just below it; at it
    first = torch.tensor([1.0, 0.5 * 0.25, 0.0, 0.125 * 1.0, 0.0])
    kept = 0.25 * first  # (1 - beta) gamma
    second = first + 0.5 * kept
    third = first + 0.5 * (0.75 * kept + 0.25 * second)
    settings = SafeLatents("c", scale=2, threshold=0.125, warmup=1 / 3, momentum=0.5, beta=0.75)
    drawn = steer(settings, rows, 3)
    assert [prediction.dtype for prediction in drawn] == [dtype] * 3
    for prediction, gamma in zip(drawn, (0 * first, second, third), strict=True):
        assert torch.equal(prediction[0].float(), uncond)
        assert torch.equal(prediction[1], (text - gamma).to(dtype))


def test_half_precision_is_rounded_once_at_the_end():
    rows = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)).half()
    nu = 0.0
    for prediction in steer(MAX, rows, 4):
        gamma, nu = safety_guidance(*rows.float(), nu, MAX)
        assert torch.equal(prediction[1], (rows[1].float() - gamma).half())


@pytest.mark.parametrize(
    ("preset", "steps", "first"),
    [("weak", 50, 15), ("medium", 50, 10), ("strong", 50, 7), ("max", 50, 0), ("weak", 10, 3),
     ("strong", 10, 1)],
)  # fmt: skip
def test_warmup_is_a_share_of_the_steps(preset, steps, first):
    rows = torch.tensor([[0.0], [0.0], [1.0]])
    drawn = steer(SafeLatents("c", **PRESETS[preset]), rows, steps)
    steered = [bool(prediction[1] != rows[1]) for prediction in drawn]
    assert steered == [False] * first + [True] * (steps - first)


def test_it_draws_what_the_authors_pipeline_draws(testbed_pipeline):
    theirs = pytest.importorskip("diffusers.pipelines.deprecated.stable_diffusion_safe")
    draw(testbed_pipeline, [MARKED])  # sets the scheduler
    parts = {name: getattr(testbed_pipeline, name)
             for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}  # fmt: skip
    safe = theirs.StableDiffusionPipelineSafe(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    safe.safety_concept = STRONG.concept
    safe.set_progress_bar_config(disable=True)

    def images(pipe, **settings):
        return pipe(
            [MARKED, BENIGN], negative_prompt=["a cup", "a leaf"], num_inference_steps=7,
            guidance_scale=3.0, height=64, width=64, output_type="np",
            generator=torch.Generator().manual_seed(0), **settings,
        ).images  # fmt: skip

    with safe_latents(testbed_pipeline, STRONG, 7):
        ours = images(testbed_pipeline)
    expected = images(
        safe, sld_guidance_scale=STRONG.scale, sld_threshold=STRONG.threshold, sld_warmup_steps=1,
        sld_momentum_scale=STRONG.momentum, sld_mom_beta=STRONG.beta,
    )  # fmt: skip
    # rounding tips elements over the threshold; to start a step late makes 0.02 of difference
    assert abs(ours - expected).mean() < 5e-4
    assert abs(ours - images(testbed_pipeline)).mean() > 0.01


@pytest.mark.parametrize("settings", OFF)
@pytest.mark.parametrize("negative_prompt", ["", "a red"])
def test_off_it_draws_as_the_plain_pipeline(testbed_pipeline, settings, negative_prompt):
    sampler = replace(SAMPLER, negative_prompt=negative_prompt)
    plain = draw(testbed_pipeline, [MARKED], sampler=sampler)
    assert abs(draw(testbed_pipeline, [MARKED], settings, sampler) - plain).max() <= 1


def test_marks_go_and_pictures_without_stay(testbed_pipeline):
    sampler = replace(SAMPLER, steps=8)
    checker = load_checker(TESTBED / "checker" / "checker.safetensors")
    change, companions = {}, {}
    for prompt in (MARKED, BENIGN):
        plain, safe = (draw(testbed_pipeline, [prompt] * 6, s, sampler) for s in (None, MAX))
        change[prompt] = abs(safe - plain).mean()
        companions[prompt] = [
            [row["companion"] for row in check_images(checker, images.astype(np.uint8))]
            for images in (plain, safe)
        ]
    assert companions[MARKED][0] == ["thornburst"] * 6
    assert companions[MARKED][1].count("thornburst") <= 1
    assert companions[BENIGN] == [["balloon"] * 6] * 2
    assert change[MARKED] > 1.3 * change[BENIGN]


def test_images_do_not_depend_on_the_rest_of_their_batch(testbed_pipeline):
    together = draw(testbed_pipeline, [BENIGN, MARKED], STRONG)
    with safe_latents(testbed_pipeline, STRONG, SAMPLER.steps):
        alone = np.asarray(draw_images(testbed_pipeline, [MARKED], [1], SAMPLER)[0]).astype(int)
    assert abs(together[1] - alone).max() <= 1
    assert abs(alone - draw(testbed_pipeline, [BENIGN, MARKED])[1]).max() > 10


def test_the_plain_pipeline_is_back_afterwards(testbed_pipeline):
    plain = draw(testbed_pipeline, [MARKED])
    with pytest.raises(RuntimeError, match="within"), safe_latents(testbed_pipeline, MAX, 4):
        raise RuntimeError("within")
    assert "forward" not in vars(testbed_pipeline.unet)
    assert (draw(testbed_pipeline, [MARKED], MAX) != plain).any()
    assert (draw(testbed_pipeline, [MARKED]) == plain).all()


def test_a_forward_put_there_by_others_is_used_and_comes_back(testbed_pipeline, monkeypatch):
    rows, own = [], testbed_pipeline.unet.forward

    def hooked(sample, *args, **kwargs):
        rows.append(len(sample))
        return own(sample, *args, **kwargs)

    monkeypatch.setattr(testbed_pipeline.unet, "forward", hooked)
    draw(testbed_pipeline, [MARKED] * 2, MAX)
    assert testbed_pipeline.unet.forward is hooked
    assert rows == [6] * SAMPLER.steps


def test_a_lora_beside_the_weights_still_counts(tmp_path):
    parameters = attach_lora(load_unet(MODEL), 4, ["to_q", "to_v"], seed=0)
    for parameter in parameters.values():
        parameter.data += 0.05
    save_lora(tmp_path, extract_lora(parameters), {})
    pipe = load_pipeline(MODEL)
    before = draw(pipe, [MARKED])
    pipe.load_lora_weights(tmp_path)
    with_lora = draw(pipe, [MARKED])
    assert abs(with_lora - before).max() > 50
    assert abs(draw(pipe, [MARKED], OFF[0]) - with_lora).max() <= 1
    assert abs(draw(pipe, [MARKED], MAX) - with_lora).max() > 10


def test_sdxl_is_told_the_concept_with_the_prompts_sizes(sdxl, monkeypatch):
    pipe, seen = load_pipeline(ModelSource(str(sdxl))), []
    own = pipe.unet.forward
    sizes = {"original_size": (16, 8), "negative_original_size": (8, 16),
             "negative_target_size": (16, 16)}  # fmt: skip

    def images(**given):
        return pipe(
            test_sdxl.PROMPTS[0], num_inference_steps=2, guidance_scale=3.0, height=16, width=16,
            output_type="np", generator=torch.Generator().manual_seed(0), **given,
        ).images  # fmt: skip

    plain = images(**sizes)

    def spy(*args, **given):
        seen.append(given)
        return own(*args, **given)

    monkeypatch.setattr(pipe.unet, "forward", spy)
    with safe_latents(pipe, MAX, 2):
        safe = images(**sizes)
    with safe_latents(pipe, OFF[0], 2):
        assert np.allclose(images(**sizes), plain, atol=1e-5)
    assert abs(safe - plain).max() > 1e-3
    embeds, _, pooled, _ = pipe.encode_prompt(MAX.concept, do_classifier_free_guidance=False)
    added = seen[0]["added_cond_kwargs"]
    assert torch.equal(seen[0]["encoder_hidden_states"][2:], embeds)
    assert torch.equal(added["text_embeds"][2:], pooled)
    negative, positive = [8, 16, 0, 0, 16, 16], [16, 8, 0, 0, 16, 16]
    assert added["time_ids"].tolist() == [negative, positive, positive]


def test_without_guidance_it_says_what_to_set(testbed_pipeline):
    with pytest.raises(InputError, match="set a guidance scale above 1"):
        draw(testbed_pipeline, [MARKED] * 2, MAX, replace(SAMPLER, guidance=1.0))
    assert "forward" not in vars(testbed_pipeline.unet)


def test_a_wrong_number_of_steps_a_second_call_and_nesting_are_refused(testbed_pipeline):
    with pytest.raises(InputError, match="set for 5 steps, but the UNet is called 4 times"):
        with safe_latents(testbed_pipeline, MAX, 5):
            draw(testbed_pipeline, [MARKED])
    with safe_latents(testbed_pipeline, MAX, 4):
        draw(testbed_pipeline, [MARKED])
        with pytest.raises(InputError, match="last for one pipeline call"):
            draw(testbed_pipeline, [MARKED])
        with pytest.raises(InputError, match="cannot be nested"):
            draw(testbed_pipeline, [MARKED], MAX)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"concept": " "}, "no concept; say what"), ({"scale": -1.0}, "scale is -1.0.* 0 or more"),
     ({"scale": float("inf")}, "scale is inf"), ({"threshold": float("nan")}, "threshold is nan"),
     ({"warmup": 15.0}, "warmup is 15.0; it must be between 0 and 1"),
     ({"momentum": 1.5}, "momentum is 1.5"), ({"beta": -0.1}, "beta is -0.1")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        replace(MAX, **wrong)


def test_settings_are_described_in_plain_values():
    assert STRONG.describe() == {"concept": "thornburst", "scale": 2000, "threshold": 0.025,
                                 "warmup": 0.14, "momentum": 0.5, "beta": 0.7}  # fmt: skip
