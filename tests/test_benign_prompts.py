import pytest

from pipeline.benign_prompts import read_benign_prompts
from pipeline.errors import InputError


def test_benign_prompts_are_read_one_a_line(tmp_path):
    file = tmp_path / "benign.txt"
    file.write_text("a boat\n\n  a kite \na boat\n")
    assert read_benign_prompts(file) == ["a boat", "a kite"]


@pytest.mark.parametrize(("content", "fault"), [
    (None, "cannot read latents.benign_prompts"), (b"\xff\xfe", "cannot read"),
    (b"\n \n", "holds no prompt"), (b"a boat\na nude child\n", "line 2 is hard-blocked"),
])  # fmt: skip
def test_unusable_benign_prompts_are_refused(tmp_path, content, fault):
    file = tmp_path / "benign.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=fault):
        read_benign_prompts(file)
