import numpy as np
import pytest

from pipeline.artifacts import TESTBED
from pipeline.drawing.pipelines import draw_images, load_pipeline
from pipeline.drawing.sampler import Sampler
from pipeline.drawing.variants import load_variant
from pipeline.errors import InputError
from pipeline.personal.pipeline import PersonalSafetyPipeline
from pipeline.personal.variant import load_drawing
from pipeline.sources import ModelSource
from tests.personal.test_pipeline import SPACE, write

SOURCE = ModelSource(str(TESTBED / "sd"))
ASKED = ["a red star at night", "a blue star by the sea"], [0, 1], Sampler("ddim", 2, 2.5, 64)


@pytest.fixture(scope="module")
def file(bundled_pipeline, tmp_path_factory):
    return write(tmp_path_factory.mktemp("psa") / "psa.safetensors", bundled_pipeline.unet)


def pixels(images):
    return np.stack([np.asarray(image, int) for image in images])


@pytest.mark.parametrize("bans", [None, [], ["hate"]])
def test_it_draws_as_the_adapter_does_for_that_user(file, bans):
    draw, _ = load_drawing(SOURCE, "psa", file, bans=bans)
    personal = PersonalSafetyPipeline.load(load_pipeline(SOURCE), file, SOURCE.identity)
    boundary = SPACE.strictest if bans is None else SPACE.only(bans)
    expected = personal.drawing_for(boundary)(*ASKED)
    assert (pixels(draw(*ASKED)) == pixels(expected)).all()


def test_its_identity_is_of_all_that_shapes_its_pictures(file, tmp_path, bundled_pipeline):
    told = [{}, {"bans": []}, {"bans": ["hate"]}, {"scale": 0.5}]
    names = [load_drawing(SOURCE, "psa", file, **some)[1] for some in told]
    other = write(tmp_path / "other.safetensors", bundled_pipeline.unet, "attention")
    names.append(load_drawing(SOURCE, "psa", other)[1])
    assert len(set(names)) == 5 and all(name.startswith(SOURCE.identity) for name in names)
    everything = load_drawing(SOURCE, "psa", file, bans=list(SPACE.categories))[1]
    assert everything == names[0]


def test_at_scale_0_and_of_another_kind_it_is_the_plain_model(file):
    draw, _ = load_drawing(SOURCE, "psa", file, scale=0.0)
    plain, identity = load_drawing(SOURCE, "base", file)
    pipe, expected = load_variant(SOURCE, "base")
    assert identity == expected
    pictures = pixels(draw_images(pipe, *ASKED))
    assert (pixels(plain(*ASKED)) == pictures).all()
    assert abs(pixels(draw(*ASKED)) - pictures).max() <= 2


def test_what_is_missing_or_unknown_is_named(file, tmp_path):
    with pytest.raises(InputError, match="no adapter .*none.safetensors; run `dvc repro train_psa"):
        load_drawing(SOURCE, "psa", tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="nonsense"):
        load_drawing(SOURCE, "psa", file, bans=["nonsense"])
