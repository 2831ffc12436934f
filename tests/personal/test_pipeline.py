import copy

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.artifacts import TESTBED
from pipeline.drawing.pipelines import draw_images
from pipeline.drawing.sampler import Sampler
from pipeline.errors import InputError
from pipeline.personal.adapter import AdapterSettings, PersonalAdapter
from pipeline.personal.files import LoadedAdapter, load_adapter, save_adapter
from pipeline.personal.pipeline import PersonalSafetyPipeline
from pipeline.personal.profiles import UserProfile
from pipeline.sources import ModelSource
from tests import test_sdxl
from tests.personal.examples import CATEGORIES, make_space, randomise

sdxl = test_sdxl.sdxl  # a random SDXL pipeline, as a folder
SPACE, SOURCE = make_space(), ModelSource(str(TESTBED / "sd"))
STAR = "a red star at night"
PROMPTS = [STAR, "a blue star by the sea"]
ADULT = UserProfile(age=30, religion="none", physical="healthy", mental="healthy")
CHILD = UserProfile(age=9)


def write(path, unet, form="gated"):
    """An adapter with random weights, in a file."""
    settings = AdapterSettings(form, 2, 8, 8, 4)
    adapter = PersonalAdapter(unet, settings, CATEGORIES, SPACE.width)
    save_adapter(path, randomise(adapter, size=0.1), SPACE, {"base_revision": SOURCE.identity})
    return path


@pytest.fixture(scope="module", params=["gated"])
def file(request, bundled_pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("psa") / "psa.safetensors"
    return write(path, bundled_pipeline.unet, request.param)


@pytest.fixture
def personal(testbed_pipeline, file):
    """The bundled model with the adapter on it."""
    return PersonalSafetyPipeline.load(testbed_pipeline, file, SOURCE.identity)


def draw(pipe, prompt=STAR, seeds=(0,), guidance=2.5, size=64, **told):
    """Pictures (n, h, w, 3) in [0, 1], the i-th of them from the i-th seed."""
    return pipe(
        prompt, num_inference_steps=2, guidance_scale=guidance, height=size, width=size,
        output_type="np", generator=[torch.Generator().manual_seed(s) for s in seeds], **told,
    ).images  # fmt: skip


def same(one, other, tolerance=1e-4):
    return np.abs(one - other).max() < tolerance


@pytest.fixture(scope="module")
def base(bundled_pipeline):
    """What the model draws by itself."""
    return draw(copy.deepcopy(bundled_pipeline))


def test_of_whom_nothing_is_told_nothing_is_shown(personal, base):
    nothing = draw(personal)
    assert not same(nothing, base, 0.01)
    assert np.array_equal(nothing, draw(personal, bans=CATEGORIES))
    assert np.array_equal(nothing, draw(personal, profile=UserProfile()))


def test_minors_are_shown_nothing_whatever_they_ban(personal):
    nothing = draw(personal)
    assert np.array_equal(nothing, draw(personal, profile=CHILD))
    assert np.array_equal(nothing, draw(personal, profile=CHILD, bans=set()))
    assert not same(nothing, draw(personal, profile=ADULT, bans=set()), 0.01)


def test_adults_are_drawn_for_inside_their_bans_and_the_floor(personal, base):
    free, hate = draw(personal, bans=set()), draw(personal, bans={"hate"})
    assert not same(free, base, 0.01)  # of the floor
    assert np.array_equal(free, draw(personal, bans={"sexual"}))
    assert np.array_equal(free, draw(personal, profile=ADULT))
    assert np.array_equal(free, draw(personal, profile=ADULT, bans=set()))
    assert np.array_equal(hate, draw(personal, profile=ADULT, bans={"hate"}))
    assert not same(hate, free, 1e-3)
    assert not same(hate, draw(personal, bans={"violence"}), 1e-3)


def test_a_level_is_its_users_boundary(personal):
    assert np.array_equal(draw(personal, level="L1"), draw(personal, bans=set()))
    assert np.array_equal(draw(personal, level="L2"), draw(personal))


def test_several_people_are_drawn_for_in_one_batch(personal):
    prompts, seeds = [STAR, STAR, PROMPTS[1]], (0, 0, 1)
    bans = [{"violence"}, None, {"hate", "violence"}]
    together = draw(personal, prompts, seeds, bans=bans)
    for k in range(3):
        assert same(together[k : k + 1], draw(personal, prompts[k], seeds[k : k + 1], bans=bans[k]))
    assert not same(together[0], together[1], 0.01)
    profiles = draw(personal, prompts, seeds, profile=[ADULT, CHILD, None])
    assert same(profiles[0:1], draw(personal, profile=ADULT))
    assert same(profiles[1:2], draw(personal, profile=CHILD))
    assert same(profiles[2:], draw(personal, PROMPTS[1], (1,)))
    levels = draw(personal, prompts, seeds, level=["L1", "L2", None], bans=[None, None, set()])
    assert same(levels[0:1], profiles[0:1]) and same(levels[1:2], profiles[1:2])
    assert same(levels[2:], draw(personal, PROMPTS[1], (1,), bans=set()))


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_one_collection_of_names_is_for_every_prompt(personal, kind):
    together = draw(personal, PROMPTS, (0, 1), bans=kind(["hate", "violence"]))
    each = draw(personal, PROMPTS, (0, 1), bans=[{"hate", "violence"}] * 2)
    assert np.array_equal(together, each)


def test_no_names_are_the_floor_alone_for_every_prompt(personal):
    together = draw(personal, PROMPTS, (0, 1), bans=[])
    assert np.array_equal(together, draw(personal, PROMPTS, (0, 1), bans=[[], []]))
    assert np.array_equal(together, draw(personal, PROMPTS, (0, 1), level="L1"))


def test_several_images_of_a_prompt_are_for_its_person(personal):
    seeds, bans = (0, 1, 2, 3), [{"hate"}, {"violence"}]
    found = draw(personal, PROMPTS, seeds, bans=bans, num_images_per_prompt=2)
    assert len(found) == 4
    for k in range(4):
        alone = draw(personal, PROMPTS[k // 2], seeds[k : k + 1], bans=bans[k // 2])
        assert same(found[k : k + 1], alone), k


def test_without_guidance_it_draws_too(personal, testbed_pipeline):
    plain = draw(personal, PROMPTS, (0, 1), guidance=1.0, bans=[set(), CATEGORIES])
    assert not same(*plain, 0.01)
    alone = draw(personal, PROMPTS[1], (1,), guidance=1.0)
    assert same(plain[1:], alone)


def test_detached_the_pipeline_is_as_it_was(personal, base, testbed_pipeline):
    shown = draw(personal, bans={"hate"})
    plain = personal.detach()
    assert plain is testbed_pipeline
    assert np.array_equal(draw(plain), base)
    assert not any(m._forward_hooks for m in plain.unet.modules())
    personal.attach()
    assert np.array_equal(draw(personal, bans={"hate"}), shown)


def test_strength_zero_is_the_base_model_and_more_is_more(personal, base):
    assert np.array_equal(draw(personal, strength=0.0), base)
    away = [np.abs(draw(personal, strength=s) - base).mean() for s in (0.01, 0.1, 1.0)]
    assert 0 < away[0] < away[1] < away[2]
    assert np.array_equal(draw(personal), draw(personal, strength=1.0))  # the last one is no more


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_refused(personal, strength):
    with pytest.raises(InputError, match="strength must be a number from 0 up, got"):
        draw(personal, strength=strength)


@pytest.mark.parametrize("prompt", ["a naked child", [STAR, "a naked child"]])
def test_a_hard_blocked_prompt_is_refused_without_its_words(personal, prompt, monkeypatch):
    monkeypatch.setattr(type(personal.pipe), "__call__", lambda *_, **__: 1 / 0)
    number = 1 if isinstance(prompt, str) else 2
    with pytest.raises(InputError, match=f"prompt number {number} is hard-blocked") as error:
        draw(personal, prompt, bans=set())
    assert "naked" not in str(error.value)


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"profile": [ADULT]}, "profile has 1 entries for 2 prompts; give one for each"),
        ({"profile": (ADULT,) * 3}, "profile has 3 entries for 2 prompts"),
        ({"bans": [{"hate"}]}, "bans has 1 entries for 2 prompts"),
        ({"bans": [{"hate"}, None, set()]}, "bans has 3 entries"),
        ({"level": ["L1"]}, "level has 1 entries for 2 prompts"),
        ({"level": "L1", "bans": set()}, "give a level, or a profile and bans, not both"),
        ({"level": ["L1", None], "profile": ADULT}, "give a level, or a profile and bans, not bo"),
        ({"level": "L9"}, "unknown level 'L9'; known: L1, L2"),
        ({"bans": {"gore"}}, "'gore' is no category"),
        ({"bans": [set(), {"gore"}]}, "'gore' is no category"),
        ({"bans": "violence"}, "is no category"),  # a name is no collection of names
    ],
)
def test_what_does_not_go_together_is_refused(personal, told, fault):
    with pytest.raises(InputError, match=fault):
        draw(personal, PROMPTS, (0, 1), **told)


def test_the_pipeline_itself_asks_for_whom(personal):
    with pytest.raises(InputError, match="was told no user"):
        draw(personal.pipe)
    draw(personal, bans=set())
    with pytest.raises(InputError, match="batch has 4 rows, there are 1 users"):
        draw(personal.pipe, PROMPTS, (0, 1))


def test_the_pipelines_own_arguments_are_handed_on(personal):
    plain = draw(personal, bans=set())
    asked = draw(personal, bans=set(), negative_prompt=["a star"])
    assert not same(plain, asked, 1e-3)
    assert draw(personal, bans=set(), size=32).shape == (1, 32, 32, 3)


def test_one_person_can_be_drawn_for_as_any_model_draws(personal, base):
    sampler = Sampler("ddim", 2, 2.5, 64)
    boundary = SPACE.only({"hate"})
    drawn = personal.drawing_for(boundary)(PROMPTS, [0, 1], sampler)
    assert all(isinstance(picture, Image.Image) for picture in drawn)
    personal.show([boundary] * 2)
    again = draw_images(personal.pipe, PROMPTS, [0, 1], sampler)
    off = personal.drawing_for(boundary, 0.0)(PROMPTS, [0, 1], sampler)
    pictures = [np.stack([np.asarray(p, np.int16) for p in some]) for some in (drawn, again, off)]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0] - pictures[2]).max() > 10
    plain = draw_images(personal.detach(), PROMPTS, [0, 1], sampler)
    assert np.array_equal(pictures[2], np.stack([np.asarray(p) for p in plain]))


def test_a_batch_that_is_halved_for_memory_is_drawn_for_the_same_person(personal, monkeypatch):
    """The half's guided rows are as many as the whole batch's people."""
    sampler, person = Sampler("ddim", 3, 3.0, 64), personal.space.strictest
    draw_for = personal.drawing_for(person)
    asked = [STAR, *PROMPTS, STAR], [1, 2, 3, 4], sampler
    whole, call = draw_for(*asked), type(personal.pipe).__call__

    def cramped(self, **told):
        if len(told["prompt"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, **told)

    monkeypatch.setattr(type(personal.pipe), "__call__", cramped)
    for one, other in zip(whole, draw_for(*asked), strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 2


def test_an_adapter_put_on_a_compiled_model_acts(testbed_pipeline, file, monkeypatch):
    """Torch skips hooks that come after compiling, unless it is told to look for them."""
    whole = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: whole(self, backend="eager"))
    pipe, sampler = testbed_pipeline, Sampler("dpm++", 1, 3.0, 64, compile=True)
    base = np.asarray(draw_images(pipe, [STAR], [1], sampler)[0], int)
    personal = PersonalSafetyPipeline.load(pipe, file, SOURCE.identity)
    drawn = personal.drawing_for(personal.space.strictest)([STAR], [1], sampler)
    assert np.abs(np.asarray(drawn[0], int) - base).max() > 2


def test_an_adapter_of_another_model_is_refused(testbed_pipeline, file):
    with pytest.raises(InputError, match="was trained on the base model .*, this is other"):
        PersonalSafetyPipeline.load(testbed_pipeline, file, "other")
    assert not any(m._forward_hooks for m in testbed_pipeline.unet.modules())


def test_pictures_by_a_gated_adapter_depend_on_bans_alone(personal):
    assert personal.by_bans
    for profile in (ADULT, UserProfile(age=70, gender="female", religion="islam")):
        assert np.array_equal(draw(personal, profile=profile, bans=set()),
                              draw(personal, bans=set()))  # fmt: skip


@pytest.mark.parametrize("file", ["attention"], indirect=True)
def test_pictures_by_the_papers_form_depend_on_the_whole_profile(personal, base):
    assert not personal.by_bans
    other = UserProfile(age=70, gender="female", religion="islam")
    one, two = (draw(personal, profile=p, bans=set()) for p in (ADULT, other))
    assert not same(one, two, 1e-3)
    both = draw(personal, [STAR, STAR], (0, 0), profile=[ADULT, other], bans=set())
    assert same(both[:1], one) and same(both[1:], two)
    assert np.array_equal(draw(personal, profile=ADULT, strength=0.0), base)
    assert np.array_equal(draw(personal.detach()), base)


def test_it_draws_with_sdxl(sdxl, tmp_path):
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(sdxl)
    pipe.set_progress_bar_config(disable=True)
    before = draw(pipe, size=16)
    loaded = load_adapter(write(tmp_path / "a", pipe.unet), pipe.unet, SOURCE.identity)
    assert isinstance(loaded, LoadedAdapter)
    personal = PersonalSafetyPipeline(pipe, loaded)
    bans = [{"hate"}, None]
    together = draw(personal, [STAR, STAR], (0, 0), size=16, bans=bans)
    for k in range(2):
        assert same(together[k : k + 1], draw(personal, size=16, bans=bans[k]), 1e-3)
    assert not same(together[0], before[0], 1e-3) and not same(*together, 1e-3)
    assert np.array_equal(draw(personal, size=16, strength=0.0), before)
    assert np.array_equal(draw(personal.detach(), size=16), before)
