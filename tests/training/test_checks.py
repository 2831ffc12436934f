import dataclasses

import pytest
import torch

from pipeline.errors import InputError
from pipeline.training.checks import check_base, check_latents, training_must_fit, unet_must_fit

CPU = RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA: no\nmore"), MemoryError(), CPU])
def test_too_little_memory_is_told_with_the_sections_own_keys(error):
    keys = [rf"psa\.optim\.{key}" for key in ("micro_batch", "gradient_checkpointing", "precision")]
    advice = ".*".join(["set, or lower, ", *keys])
    with pytest.raises(InputError, match=advice), training_must_fit("psa"):
        raise error


def test_a_unet_that_does_not_fit_is_told_without_keys_that_do_not_help():
    with pytest.raises(InputError, match="UNet of base_model.path .*CUDA: no.*; free memory"):
        with unet_must_fit():
            raise torch.OutOfMemoryError("CUDA: no\nmore")


def test_other_errors_are_left_alone():
    for error in (ZeroDivisionError, RuntimeError("shapes do not match")):
        with pytest.raises((ZeroDivisionError, RuntimeError)), training_must_fit("psa"):
            raise error
    with training_must_fit("psa"):
        pass


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"judge_spec": ""}, "latents of hate do not say which judge .*cache_latents"),
        ({"pair_ids": []}, "hate has no pairs to train on; run `dvc repro build_pairs`"),
        ({"margin": torch.tensor([-1.0, -1.0, -1.0, 9.0])}, "hate worse .* preference is reversed"),
        ({"prompt_embeds": torch.zeros(9, 6, 16).half()}, "text width 16, the UNet .* 4 and 8"),
        ({"chosen_mean": torch.zeros(4, 1, 3, 4, 4)}, "latents have 3 channels"),
    ],
)
def test_latents_that_cannot_be_trained_on_are_refused(tiny_unet, tiny_latents, change, fault):
    with pytest.raises(InputError, match=fault):
        check_latents(tiny_unet, dataclasses.replace(tiny_latents, **change), "hate")


def test_latents_that_fit_pass_with_half_of_the_pairs_in_doubt(tiny_unet, tiny_latents):
    check_latents(tiny_unet, tiny_latents, "hate")
    doubtful = dataclasses.replace(tiny_latents, margin=torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    check_latents(tiny_unet, doubtful, "hate")


def test_one_categorys_latents_of_another_model_are_named(tiny_latents):
    other = dataclasses.replace(tiny_latents, base_revision="other")
    check_base({"hate": tiny_latents}, "tiny")
    with pytest.raises(InputError, match="latents of violence come from base model other, base_mo"):
        check_base({"hate": tiny_latents, "violence": other}, "tiny")
