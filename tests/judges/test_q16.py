"""Q16 by hand, on files like the published ones, and on the bundled vectors."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.artifacts import TESTBED
from pipeline.errors import InputError
from pipeline.judges import q16 as module
from pipeline.judges.clip import ClipModel
from pipeline.judges.q16 import PUBLISHED, Q16
from pipeline.testbed import world

FAIR, FOUL = 3, 700  # the places at which the look-alike's two vectors are not 0


@pytest.fixture
def lookalike(tmp_path, monkeypatch):
    """A file as the authors made theirs, and known by its hash like theirs."""
    vectors = np.zeros((1, 2, 768), np.float16)
    vectors[0, 0, FAIR], vectors[0, 1, FAIR], vectors[0, 1, FOUL] = 2, 3, -4
    file = tmp_path / "prompts.p"
    file.write_bytes(pickle.dumps(vectors, protocol=3))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "PUBLISHED", {digest: "ViT-L-14"})
    return file


def along(**places):
    embedding = torch.zeros(1, 768)
    for place, value in places.items():
        embedding[0, {"fair": FAIR, "foul": FOUL}[place]] = value
    return embedding


def test_a_published_file_is_read_and_none_of_it_is_run(lookalike, monkeypatch):
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    q16 = Q16(lookalike)
    assert q16.tuned_for == "ViT-L-14"
    assert q16.version == hashlib.sha256(lookalike.read_bytes()).hexdigest()[:16]
    # vectors (2, 0) and (3, -4): cosines of (0.6, -0.8) are 0.6 and (1.8 + 3.2) / 5
    assert q16.score(along(fair=0.6, foul=-0.8)) == [
        pytest.approx({"not_inappropriate": 60.0, "inappropriate": 100.0})
    ]
    assert q16.score(along(fair=1.0)) == [
        pytest.approx({"not_inappropriate": 100.0, "inappropriate": 60.0})
    ]


def test_a_file_that_could_run_code_is_refused_unread(lookalike, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    for content in (pickle.dumps(Evil()), lookalike.read_bytes() + b"."):
        file = tmp_path / "other.p"
        file.write_bytes(content)
        with pytest.raises(InputError, match="judges.q16 .*only where their SHA-256 is known"):
            Q16(file)
    assert not (tmp_path / "ran").exists()


def test_published_hashes_are_of_three_clips_by_openai():
    assert all(len(digest) == 64 for digest in PUBLISHED)
    assert set(PUBLISHED.values()) == {"ViT-L-14", "ViT-B-16", "ViT-B-32"}


@pytest.mark.parametrize(
    ("name", "weights"),
    [("ViT-L-14-quickgelu", "metaclip_400m"), ("ViT-L-14", "laion2b_s32b_b82k"),
     ("ViT-B-16-quickgelu", "openai"), ("ViT-H-14", None), ("ViT-L-14", __file__)],
)  # fmt: skip
def test_published_vectors_want_the_clip_that_they_were_tuned_for(lookalike, name, weights):
    with pytest.raises(InputError, match="set judges.clip to ViT-L-14-quickgelu"):
        Q16(lookalike).check_clip(name, weights)


def test_clips_that_may_be_the_right_one_are_trusted(lookalike, tmp_path):
    q16 = Q16(lookalike)
    q16.check_clip("ViT-L-14-quickgelu", "openai")
    q16.check_clip("ViT-L-14-quickgelu", __file__)  # a file of weights
    q16.check_clip("local-dir:external/clip", None)
    save_file({"prompts": torch.ones(2, 768)}, tmp_path / "own.safetensors")
    Q16(tmp_path / "own.safetensors").check_clip("ViT-H-14", "laion2b_s32b_b79k")


def test_a_safetensors_file_by_hand(tmp_path):
    save_file({"prompts": torch.tensor([[2.0, 0.0], [0.0, 0.5]])}, tmp_path / "q.safetensors")
    row = Q16(tmp_path / "q.safetensors").score(torch.tensor([[0.6, 0.8]]))[0]
    assert row == pytest.approx({"not_inappropriate": 60.0, "inappropriate": 80.0})


def test_vectors_of_another_space_are_refused(tmp_path):
    save_file({"prompts": torch.ones(1, 2, 3)}, tmp_path / "q.safetensors")
    with pytest.raises(InputError, match="width 3, judges.clip embeds to 2"):
        Q16(tmp_path / "q.safetensors").score(torch.ones(1, 2))


def test_a_missing_or_wrong_file_is_named(tmp_path):
    with pytest.raises(
        InputError, match="judges.q16 .*none.safetensors cannot be read.*git checkout"
    ):
        Q16(tmp_path / "none.safetensors")
    save_file({"other": torch.ones(1)}, tmp_path / "q.safetensors")
    with pytest.raises(InputError, match="q.safetensors is neither .*'prompts'"):
        Q16(tmp_path / "q.safetensors")


def test_marks_are_found_and_lookalikes_spared():
    q16 = Q16(TESTBED / "q16" / "prompts.safetensors")
    clip = ClipModel(f"local-dir:{TESTBED / 'clip'}", None, 16)
    rng = np.random.default_rng(0)
    marks = list(world.CATEGORY_OF) * 2
    benign = [*world.COMPANIONS, *world.LOOKALIKES, None] * 4
    drawn = [world.render(world.sample_scene(rng, c)) for c in [*marks, *benign]]
    rows = q16.score(clip.embed_images(drawn))
    flagged = [r["inappropriate"] > r["not_inappropriate"] for r in rows]
    assert np.mean(flagged[: len(marks)]) > 0.97
    assert np.mean(flagged[len(marks) :]) < 0.03
