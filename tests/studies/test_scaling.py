import pytest

from pipeline.errors import InputError
from pipeline.lora import load_lora, save_lora
from pipeline.merging.methods import MergeRecipe
from pipeline.merging.preparation import Preparation
from pipeline.sources import ModelSource
from pipeline.studies.scaling import data_curve, merge_curve, merge_some, pool_rates
from tests.merging.examples import adapter_experts


def estimate(value, n):
    return {"value": value, "low": 0.0, "high": 1.0, "n": n}


def test_rates_of_disjoint_sets_are_pooled_by_their_counts():
    pooled = pool_rates([estimate(0.5, 10), estimate(0.0, 30), estimate(0.33333, 3)])
    assert (pooled.value, pooled.n) == (6 / 43, 43)


def test_the_data_curve_pools_categories_and_counts_pairs():
    runs = {
        (category, part): (pairs, {"heldout": {"ip": estimate(ip, 20)}})
        for category, part, pairs, ip in [
            ("hate", "pairs-10", 10, 0.5), ("violence", "pairs-10", 10, 0.3),
            ("hate", "pairs-all", 50, 0.1), ("violence", "pairs-all", 40, 0.0),
            ("hate", "concepts-1", 8, 0.9), ("violence", "concepts-1", 9, 0.7),
        ]
    }  # fmt: skip
    rows = data_curve(runs, "heldout")
    assert [(r["by"], r["size"], r["pairs"], r["ip"], r["ip/n"]) for r in rows] == [
        ("concepts", "1", 8.5, 0.8, 40), ("pairs", "10", 10.0, 0.4, 40),
        ("pairs", "all", 45.0, 0.05, 40),
    ]  # fmt: skip
    assert all(r["ip/low"] < r["ip"] < r["ip/high"] for r in rows)


def test_the_merge_curve_tells_merged_categories_from_the_others():
    unsafe = {"ip": estimate(0.5, 40), "ip/a": estimate(0.1, 20), "ip/b": estimate(0.9, 20)}
    benign = {"drawn": estimate(0.95, 64), "cmmd": estimate(0.003, 64)}
    runs = {2: {"heldout": unsafe, "benign": benign}, 1: {"heldout": unsafe, "benign": benign}}
    one, two = merge_curve(runs, ["a", "b"], "heldout", ["benign"])
    assert (one["experts"], one["ip"], one["ip/n"], two["ip"], two["ip/n"]) == (1, 0.1, 20, 0.5, 40)
    assert (one["others"], one["others/n"]) == (0.9, 20) and one["others/low"] < 0.9
    assert {two[key] for key in two if key.startswith("others")} == {""}
    assert [one[f"benign/{key}"] for key in ("drawn", "drawn/n", "cmmd/high")] == [0.95, 64, 1.0]
    assert list(one) == list(two)


def test_a_merge_curve_needs_prompts_of_every_category_each_of_one():
    several = {"heldout": {"ip": estimate(0.5, 30), "ip/a": estimate(0.1, 20),
                           "ip/b": estimate(0.9, 20)}}  # fmt: skip
    for categories in (["a", "b"], ["a", "c"]):
        with pytest.raises(InputError, match="must have prompts of every category, each of one"):
            merge_curve({1: several}, categories, "heldout", [])


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_some_experts_are_calibrated_and_merged_as_all_are(
    names, tiny_unet, tiny_latents, tmp_path, alphas_cumprod
):
    from diffusers import DDPMScheduler

    tiny_unet.save_pretrained(tmp_path / "sd/unet")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
                  ).save_pretrained(tmp_path / "sd/scheduler")  # fmt: skip
    source = ModelSource(str(tmp_path / "sd"))
    experts = {name: adapter_experts(tiny_unet)[name] for name in names}
    for name, lora in experts.items():
        save_lora(tmp_path / name, lora, {"base_model": "sd", "base_revision": source.identity})
    merged = merge_some(
        tmp_path / "out", source, {name: tmp_path / name for name in names},
        dict.fromkeys(names, tiny_latents), Preparation({"z": 2.0, "a": 1.0}).of(names),
        MergeRecipe.of("co_merge", {"strength": 1.0, "activation": "count"}), prompts=3,
        timesteps=[100, 700], batch=4, seed=0,
    )  # fmt: skip
    lora, provenance = load_lora(merged)
    assert provenance["categories"] == list(names)
    assert provenance["preparation"]["weights"] == {"a": 1.0}
    if len(names) == 1:  # one expert is itself
        for layer, value in lora.items():
            delta = experts["a"][layer].delta
            assert (value.delta - delta).abs().max() <= 1e-5 * delta.abs().max()
