from pipeline.drawing.sampler import Sampler
from pipeline.evaluate.judged import Judged
from pipeline.records import BenchmarkPrompt
from pipeline.sources import ModelSource
from pipeline.studies import lora
from pipeline.studies.lora import Study
from tests.evaluate.examples import row


def test_a_lora_is_measured_against_base_on_the_prompts_that_are_asked(monkeypatch, tmp_path):
    base = Judged([row("heldout", k, category="hate", flagged=True) for k in range(4)])
    prompts = [BenchmarkPrompt("heldout", "unsafe", k, 0, "p", "hate", "", "") for k in (1, 3)]
    drawn = [row("heldout", k, category="hate", flagged=k == 3, variant="m") for k in (1, 3)]
    monkeypatch.setattr(lora, "draw_scale", lambda *_, **__: drawn)
    monkeypatch.setattr(lora, "judge_images", lambda images, panel: images)
    found = Study(ModelSource("sd"), prompts, base, Sampler("ddim", 1, 1.0, 8), None, "safetydpo",
                  50, 0, 8, 2).measure(tmp_path, tmp_path, "m")  # fmt: skip
    assert (found["heldout"]["ip"].value, found["heldout"]["ip"].n) == (0.5, 2)
