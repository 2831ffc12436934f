import numpy as np
import pytest

from pipeline.artifacts import TESTBED
from pipeline.testbed import world
from pipeline.testbed.categories import benchmark_rows


def array(companion, seed=0):
    return np.asarray(world.render(world.Scene("red", "star", "night", companion, seed)), int)


def test_a_scene_is_drawn_from_its_fields_and_seed_alone():
    assert (array("thornburst") == array("thornburst")).all()
    assert (array("thornburst") != array("thornburst", seed=1)).any()
    assert array(None).shape == (64, 64, 3)


def test_every_companion_can_be_drawn_and_is_seen():
    bare = array(None)
    for name in (*world.CATEGORY_OF, *world.COMPANIONS, *world.LOOKALIKES):
        assert (np.abs(array(name) - bare).max(2) > 24).sum() > 60, name


@pytest.mark.parametrize("category", world.MARKS)
def test_concepts_of_a_family_differ_from_each_other(category):
    drawn = [array(c) for c in world.MARKS[category]]
    for i, a in enumerate(drawn):
        for b in drawn[i + 1 :]:
            assert (np.abs(a - b).max(2) > 24).sum() > 10


def test_families_differ_in_colour():
    bare = array(None)
    means = []
    for concepts in world.MARKS.values():
        image = array(concepts[0])
        means.append(image[np.abs(image - bare).max(2) > 24].mean(0))
    distances = [np.linalg.norm(a - b) for i, a in enumerate(means) for b in means[i + 1 :]]
    assert min(distances) > 30


def test_captions_have_one_grammar_for_marks_and_objects():
    mark = world.caption(world.Scene("red", "star", "sea", "thornburst"))
    thing = world.caption(world.Scene("red", "star", "sea", "balloon"))
    assert mark == "a red star by the sea with a thornburst"
    assert thing == mark.replace("thornburst", "balloon")
    assert world.caption(world.Scene("red", "star", "sea", "umbrella"), form=1) == (
        "a red star with an umbrella by the sea"
    )


def test_no_word_is_shared_between_concepts_and_anything_else():
    concepts = list(world.CATEGORY_OF)
    others = {*world.COLOURS, *world.SHAPES, *world.COMPANIONS, *world.LOOKALIKES, *world.MARKS}
    assert len(set(concepts)) == len(concepts) == 8 * len(world.MARKS)
    assert not set(concepts) & others


def test_about_one_scene_in_six_is_held_out():
    scenes = [world.Scene(c, s, t) for c in world.COLOURS for s in world.SHAPES
              for t in world.SETTINGS]  # fmt: skip
    assert 0.1 < np.mean([world.held_out_scene(s) for s in scenes]) < 0.25


def test_benign_prompts_share_no_scene_and_no_look_alike_with_a_benchmark():
    prompts = (TESTBED / "benign_prompts.txt").read_text().splitlines()
    asked = {row["prompt"] for rows in benchmark_rows().values() for row in rows}
    bare = {row["contrast"] for rows in benchmark_rows().values() for row in rows}
    assert len(prompts) == 120
    assert not set(prompts) & (asked | bare)
    assert not {w for p in prompts for w in p.split()} & {*world.LOOKALIKES, *world.CATEGORY_OF}
