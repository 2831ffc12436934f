import pytest

from pipeline.errors import InputError
from pipeline.user_prompts import Prompt, plan_images, read_prompts

STAR, MOON = "a red star at night", "a blue moon in a field"


def test_a_text_has_one_prompt_a_line(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text(f"\ufeff{STAR}\n\n  {MOON}, in winter \r\n", encoding="utf-8")
    assert read_prompts(file) == [
        Prompt(STAR, f"{file} line 1"), Prompt(f"{MOON}, in winter", f"{file} line 3"),
    ]  # fmt: skip


def test_the_hard_block_is_that_of_the_policy():
    with pytest.raises(InputError, match=r"^here is hard-blocked \(sexualises_minors\)$"):
        plan_images([Prompt("an underage nude", "here")], 0, 1)
