import dataclasses

import pytest
import torch

from pipeline.errors import InputError
from pipeline.latents import FILE, hold_out, join_latents, load_latents, save_latents


def test_the_cache_comes_back_equal(tiny_latents, tmp_path):
    save_latents(tmp_path / "l", tiny_latents)
    loaded = load_latents(tmp_path / "l")
    for field in dataclasses.fields(tiny_latents):
        ours, theirs = getattr(tiny_latents, field.name), getattr(loaded, field.name)
        assert torch.equal(ours, theirs) if torch.is_tensor(ours) else ours == theirs
    for k in range(8):  # equal tiny_latents are equal files
        save_latents(tmp_path / str(k), tiny_latents)
    assert len({(tmp_path / str(k) / FILE).read_bytes() for k in range(8)}) == 1
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o700


def test_a_damaged_cache_is_named(tiny_latents, tmp_path):
    with pytest.raises(InputError, match="missing or damaged"):
        load_latents(tmp_path)
    save_latents(tmp_path, tiny_latents)
    file = tmp_path / "latents.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="latents.safetensors is missing or damaged"):
        load_latents(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("chosen_mean", lambda v: v.double(), "must hold finite float32, it is torch.float64"),
        (
            "prompt_embeds",
            lambda v: v.float(),
            "must hold finite float16, it is torch.float32",
        ),
        ("margin", lambda v: v * float("nan"), "it is torch.float32 with NaN or infinity"),
        ("rejected_std", lambda v: v / 0, "it is torch.float32 with NaN or infinity"),
    ],
)
def test_values_that_cannot_be_trained_on_are_named(tiny_latents, tmp_path, name, change, fault):
    changed = {name: change(getattr(tiny_latents, name))}
    save_latents(tmp_path, dataclasses.replace(tiny_latents, **changed))
    with pytest.raises(InputError, match=f"{name}.*{fault}; run `dvc repro cache_latents`"):
        load_latents(tmp_path)


def test_joined_categories_keep_their_prompts(tiny_latents):
    other = dataclasses.replace(tiny_latents, prompt_embeds=tiny_latents.prompt_embeds + 1)
    joined = join_latents([tiny_latents, other])
    assert len(joined) == 8
    row = joined.prompt_embeds[joined.rejected_prompt[5]]
    assert torch.equal(row, other.prompt_embeds[other.rejected_prompt[1]])
    assert joined.benign_prompt.tolist() == [0, 1, 9, 10]
    assert torch.equal(joined.margin, torch.cat([tiny_latents.margin, other.margin]))


def test_categories_that_do_not_fit_are_refused(tiny_latents):
    with pytest.raises(InputError, match="different base models"):
        join_latents([tiny_latents, dataclasses.replace(tiny_latents, base_revision="x")])
    with pytest.raises(InputError, match="different judges"):
        join_latents([tiny_latents, dataclasses.replace(tiny_latents, judge_spec="x")])
    with pytest.raises(InputError, match="different shapes"):
        small = dataclasses.replace(tiny_latents, chosen_mean=tiny_latents.chosen_mean[..., :2])
        join_latents([tiny_latents, small])


def test_held_out_pairs_are_chosen_by_their_ids(tiny_latents):
    kept, held_out = hold_out(tiny_latents, 1)
    assert sorted(kept.pair_ids + held_out.pair_ids) == tiny_latents.pair_ids
    reversed_order = tiny_latents.select([3, 2, 1, 0])
    assert hold_out(reversed_order, 1)[1].pair_ids == held_out.pair_ids
    k = tiny_latents.pair_ids.index(held_out.pair_ids[0])
    assert torch.equal(held_out.chosen_mean[0], tiny_latents.chosen_mean[k])
    assert torch.equal(held_out.rejected_prompt, tiny_latents.rejected_prompt[k : k + 1])
    with pytest.raises(InputError, match="leaves none of 4 pairs"):
        hold_out(tiny_latents, 4)
